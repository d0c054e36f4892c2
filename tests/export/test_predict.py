from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from hpo.errors import DataError, UsageError
from hpo.spec import StudySpec
from tests.training.trials import make_spec

if TYPE_CHECKING:
    from tests.export.conftest import Exported

pytestmark = pytest.mark.keras

BUILDERS = """
import keras


def flat(hp, input_shape):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Dense(hp.Int("units", 2, 8), "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(x))


def joined(hp, input_shape):
    inputs = {name: keras.Input(shape) for name, shape in input_shape.items()}
    x = keras.layers.Concatenate()(list(inputs.values()))
    x = keras.layers.Dense(hp.Int("units", 2, 8), "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(x))
"""


def predict(exported: Exported, file: Path, array: str = "x") -> list[dict[str, Any]]:
    from hpo.export.predict import predict_file

    return predict_file(exported.bundle.folder, file, array)


def test_every_kind_of_file(exported: Exported, rows: Path) -> None:
    x = exported.raw_test_rows
    np.save(rows.with_suffix(".npy"), x.astype(np.uint8))
    np.savetxt(rows.with_suffix(".csv"), x, delimiter=",")
    found = [predict(exported, rows.with_suffix(kind)) for kind in (".npz", ".npy", ".csv")]
    assert len(found[0]) == len(x)
    assert found[0] == found[1] == found[2]


def test_a_row(exported: Exported, rows: Path) -> None:
    for row in predict(exported, rows)[:20]:
        assert set(row) == {"prediction", "probability", "classes"}
        assert list(row["classes"]) == list("0123456789")
        assert sum(row["classes"].values()) == pytest.approx(1, abs=1e-5)
        best = max(row["classes"], key=row["classes"].get)
        assert (row["prediction"], row["probability"]) == (best, row["classes"][best])


def test_rows_of_other_tasks() -> None:
    from hpo.export.predict import _row

    names = {"class_names": ["no", "yes"], "task": "binary"}
    expected = {"prediction": "no", "probability": 0.75, "classes": {"no": 0.75, "yes": 0.25}}
    assert _row(np.array([0.25]), names) == expected
    assert _row(np.array([1.5]), {"task": "regression"}) == {"prediction": 1.5}
    assert _row(np.array([1.5, 2]), {"task": "regression"}) == {"prediction": [1.5, 2.0]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.npz", {"features": np.zeros((2, 64))}, "no array 'x'; it holds: features"),
        ("rows.npz", {"x": np.zeros((2, 63))}, r"takes rows of shape \(64,\), received \(63,\)"),
        ("rows.npz", {"x": np.zeros(64)}, r"takes rows of shape \(64,\), received \(\)"),
        (
            "rows.npz",
            {"x": np.full((2, 64), np.nan)},
            "x has 128 .* first is nan at row 0, index 0",
        ),
        ("rows.npz", {"x": np.full((2, 64), "a")}, r"x holds strings \(dtype <U1\); expected real"),
        ("rows.npz", {"x": np.array([[{}] * 64])}, "can't be read as .* holds Python objects"),
        ("rows.npz", b"", "can't be read as"),
        ("rows.npz", b"PK\x03\x04 but no archive", "can't be read as"),
        ("rows.npy", b"\x93NUMPY and no more", "can't be read as"),
        ("rows.csv", b"a,b\n1,2\n", "can't be read as"),
        ("rows.csv", b"1,2\n3,4\n", r"received \(2,\)"),
        ("rows.csv", b"", "expected at least one row"),
        ("rows.txt", b"1,2", "can't be read as .* it is no such file"),
        ("ROWS.CSV", b"1,2\n3,4\n", r"received \(2,\)"),
    ],
)
def test_files_that_do_not_fit(
    exported: Exported, tmp_path: Path, name: str, content: Any, message: str
) -> None:
    if isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*{message}") as caught:
        predict(exported, tmp_path / name)
    # What can't be done here.
    assert "allow_pickle" not in str(caught.value)
    assert "preprocess.missing" not in str(caught.value)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "predict_builders.py").write_text(BUILDERS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("missing", ["auto", "refuse"])
def test_rows_of_a_table_with_gaps(project: Path, missing: str) -> None:
    """They are filled in, or refused, as the preparation of the data says."""
    from hpo.export.predict import predict_file
    from tests.export.test_sequences import export

    frame = pd.DataFrame({"a": np.arange(40) % 7, "b/c": np.arange(40) % 5 / 2})
    frame.assign(y=["no", "yes"] * 20).to_csv(project / "table.csv", index=False)
    data = {
        "source": {"type": "table", "path": "table.csv", "target": "y"},
        "preprocess": {"missing": missing},
    }
    export(small(data, "flat"), project)
    fresh = project / "fresh.csv"
    frame.to_csv(fresh, index=False)
    assert len(predict_file(project / "bundle", fresh, "x")) == 40
    frame.drop(index=3).reindex(range(40)).to_csv(fresh, index=False)
    if missing == "auto":
        rows = predict_file(project / "bundle", fresh, "x")
        assert all(np.isfinite(row["probability"]) for row in rows)
    else:
        words = r"fresh\.csv: column 'a' is missing in row 3, counted from 0; fill it in$"
        with pytest.raises(DataError, match=words):
            predict_file(project / "bundle", fresh, "x")
    for value, words in (
        (1e39, r"has 6 of 40 .* first is 1e\+39 in row 3"),
        ("?", "numeric, but 6"),
    ):
        frame.astype({"a": object}).replace({"a": {3: value}}).to_csv(fresh, index=False)
        with pytest.raises(DataError, match=rf"fresh\.csv: column 'a' .*{words}") as caught:
            predict_file(project / "bundle", fresh, "x")
        assert "preprocess.missing" not in str(caught.value)


def test_inputs_with_a_slash_in_their_names(project: Path) -> None:
    from hpo.export.predict import predict_file
    from tests.export.test_sequences import export

    x = np.random.default_rng(0).normal(size=(40, 3))
    arrays: dict[str, Any] = {"left/x": x, "right/x": x[:, :2], "y": x[:, 0] > 0}
    np.savez(project / "data.npz", **arrays)
    data = {"source": {"type": "npz", "path": "data.npz", "x": ["left/x", "right/x"]}}
    export(small(data, "joined"), project)
    assert len(predict_file(project / "bundle", project / "data.npz", "x")) == 40


def small(data: dict[str, Any], builder: str) -> StudySpec:
    return make_spec(
        data=data,
        model={"builder": f"predict_builders:{builder}"},
        training={"epochs": 1},
        space={"units": 4},
    )


def test_no_file_and_no_bundle(exported: Exported, rows: Path, tmp_path: Path) -> None:
    from hpo.export.predict import predict_file

    with pytest.raises(UsageError, match="there is no file"):
        predict(exported, tmp_path / "none.npz")
    with pytest.raises(UsageError, match="is no exported bundle: expected a folder with"):
        predict_file(tmp_path, rows, "x")


@pytest.mark.parametrize(
    ("names", "needs", "load"),
    [
        (
            ["my>Layer"],
            "needs my>Layer, which Keras does not bring; load",
            r"custom_objects=\.\.\.\)",
        ),
        (["Lambda"], "has Lambda layers, .*; load", r"\.\.\., safe_mode=False\) .* if you trust"),
        (
            ["Lambda", "f"],
            "needs f, .* and has Lambda",
            r"custom_objects=\.\.\., safe_mode=False\)",
        ),
    ],
)
def test_a_model_that_keras_alone_can_not_load(
    exported: Exported, rows: Path, tmp_path: Path, names: list[str], needs: str, load: str
) -> None:
    from hpo.export.predict import predict_file

    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, bundle)
    facts = json.loads((bundle / "metrics.json").read_text())
    (bundle / "metrics.json").write_text(json.dumps({**facts, "custom_objects": names}))
    with pytest.raises(UsageError, match=rf"the model in .* {needs}.*{load}"):
        predict_file(bundle, rows, "x")


def test_a_damaged_bundle(exported: Exported, rows: Path, tmp_path: Path) -> None:
    from hpo.export.predict import predict_file

    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, bundle)
    (bundle / "model.keras").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"model.keras can't be loaded, export it again"):
        predict_file(bundle, rows, "x")
    (bundle / "metrics.json").write_text(json.dumps({"task": "multiclass"}))
    with pytest.raises(UsageError, match="lacks class_names, custom_objects, input, outputs"):
        predict_file(bundle, rows, "x")
    (bundle / "metrics.json").write_text("{")
    with pytest.raises(UsageError, match=r"metrics.json can't be read"):
        predict_file(bundle, rows, "x")
