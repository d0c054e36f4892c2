"""A model of pictures predicts from files what it said of them in the validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.data import open_raw_part
from hpo.data.pictures import find_pictures
from hpo.errors import DataError, UsageError
from hpo.export.values import Bundle, ExportTask
from tests.conftest import ROOT
from tests.pictures import write_digits
from tests.training.trials import MemoryChannel, make_spec

pytestmark = pytest.mark.keras

Predict = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportTask, Bundle, Path]:
    """A small network on 500 digits; the bundle and the folder of pictures."""
    from hpo.export.bundle import write_bundle
    from hpo.training.bench import prepare
    from hpo.training.channel import TrialTask
    from hpo.training.trial import run_trial

    folder = tmp_path_factory.mktemp("pictures")
    write_digits(folder / "digits", 500)
    source = {"type": "images", "path": str(folder / "digits"), "size": [8, 8]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_CACHE", str(folder / "cache"))
        spec = make_spec(
            data={
                "source": {**source, "color": "grayscale"},
                "preprocess": {"normalize": "standard"},
            },
            model={"builder": "models.cnn:build"},
            training={"epochs": 5, "batch_size": 32, "augment": {"translation": 0.1}},
            space={"depth": 1, "units": 32, "filters_0": 16, "dropout": 0.0},
        )
        channel = MemoryChannel()
        bench = prepare(spec, ROOT)
        end = run_trial(bench, TrialTask(1, 3, 1, folder / "trial", 0), channel)
        assert end.checkpoint is not None
        task = ExportTask(
            spec=spec,
            project=ROOT,
            number=1,
            params={name: channel.suggest(name, each) for name, each in channel.suggested.items()},
            value=end.progress.best_value or 0.0,
            seed=3,
            checkpoint=end.checkpoint,
            folder=folder / "bundle",
            data=bench.data.signature.fingerprint,
        )
        return task, write_bundle(task), folder / "digits"


@pytest.fixture
def predict(exported: tuple[ExportTask, Bundle, Path]) -> Predict:
    from hpo.export.predict import predict_file

    return lambda file: predict_file(exported[1].folder, file, "x")


@pytest.fixture
def digits(exported: tuple[ExportTask, Bundle, Path]) -> Path:
    return exported[2]


def test_a_folder_gets_the_answers_of_the_validation(
    exported: tuple[ExportTask, Bundle, Path],
    predict: Predict,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, bundle, _ = exported
    monkeypatch.setenv("HPO_CACHE", str(tmp_path))
    rows = predict(digits)
    assert [row["file"] for row in rows] == find_pictures(digits)
    right = np.asarray([row["prediction"] == row["file"].partition("/")[0] for row in rows])
    held = open_raw_part(task.spec.data, task.project, "validation").rows
    assert right[held].mean() == pytest.approx(bundle.validation["accuracy"])
    assert right[held].mean() > 0.5


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same answer, whatever the file is called."""
    return bool(
        one["prediction"] == other["prediction"]
        and one["probability"] == pytest.approx(other["probability"], abs=1e-5)
    )


def test_one_picture_a_table_and_pixels(predict: Predict, digits: Path, tmp_path: Path) -> None:
    from hpo.data.pictures import read_pictures

    names = find_pictures(digits)[:7]
    expected = predict(digits)[:7]
    (one,) = predict(digits / names[2])
    assert one["file"] == Path(names[2]).name
    assert same(one, expected[2])
    table = pd.DataFrame({"image": [str(digits / name) for name in names], "more": 1})
    table.to_csv(tmp_path / "files.csv", index=False)
    rows = predict(tmp_path / "files.csv")
    assert [row["file"] for row in rows] == table["image"].tolist()
    assert all(map(same, rows, expected))
    table[["image"]].rename(columns={"image": "any"}).to_csv(tmp_path / "one.csv", index=False)
    assert predict(tmp_path / "one.csv") == rows
    np.save(tmp_path / "pixels.npy", read_pictures(digits, names, None, "grayscale")[0])
    pixels = predict(tmp_path / "pixels.npy")
    assert all(map(same, pixels, expected))
    assert "file" not in pixels[0]


def test_what_is_no_picture(predict: Predict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*none\.png to predict from"):
        predict(tmp_path / "none.png")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png: it holds no picture"):
        predict(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no picture"):
        predict(tmp_path / "empty")
    (tmp_path / "files.csv").write_text("a,b\nx.png,1\n")
    with pytest.raises(DataError, match="no column 'image'; it has: a, b"):
        predict(tmp_path / "files.csv")
    (tmp_path / "files.csv").write_text("x.png\ny.png\n")
    with pytest.raises(DataError, match=r"begins with the file 'x\.png'; expected a line with"):
        predict(tmp_path / "files.csv")
    (tmp_path / "files.csv").write_text("image\ny.png\n")
    with pytest.raises(DataError, match=r"1 of 1 pictures are not there; the first is .*y\.png"):
        predict(tmp_path / "files.csv")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes\.txt: expected a file that ends in one of"):
        predict(tmp_path / "notes.txt")
