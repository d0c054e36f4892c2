"""Data and builders that can't work, or that look wrong, through the command.

Each is told in words that name file, row or column, before anything exists. What tests/data and
tests/training ask of single functions is asked here of `hpo submit` and `hpo validate`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.conftest import Hpo

pytestmark = pytest.mark.keras

Section = dict[str, Any]

BUILDERS = """
import keras
from keras.layers import Dense

HEADS = {"binary": "sigmoid", "multiclass": "softmax", "multilabel": "sigmoid"}


def good(hp, input_shape, num_outputs, task):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, Dense(num_outputs, HEADS.get(task))(x))


def raises(hp, input_shape):
    return keras.Sequential([keras.Input(input_shape), Dense(hp.Int("units", 0, 4))])


def unbuilt(hp, num_outputs):
    return keras.Sequential([Dense(hp.Int("units", 4, 8)), Dense(num_outputs, "softmax")])


class NoCall(keras.Model):
    pass


def never_built(hp):
    return NoCall()


def layer(hp, num_outputs):
    return Dense(num_outputs, "softmax")


def wrong_head(hp, input_shape, units, activation=None):
    return keras.Sequential([keras.Input(input_shape), Dense(units, activation)])
"""


def study(data: Section, **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "small",
        "data": data,
        "model": {"builder": "builders:good"},
        "objective": {"metric": "val_loss", "direction": "minimize"},
        "search": {"trials": 2},
        **changes,
    }


def people(rows: int = 40, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.normal(40, 9, rows), "job": rng.choice(["chef", "nurse"], rows)}
    )
    return frame.assign(**{"y": ["no", "yes"] * (rows // 2), **columns})


def csv(folder: Path, frame: pd.DataFrame, **source: Any) -> Section:
    frame.to_csv(folder / "people.csv", index=False)
    return {"source": {"type": "table", "path": "people.csv", "target": "y", **source}}


def parquet(folder: Path, content: pd.DataFrame | bytes) -> Section:
    path = folder / "people.parquet"
    path.write_bytes(content) if isinstance(content, bytes) else content.to_parquet(path)
    return {"source": {"type": "table", "path": "people.parquet", "target": "y"}}


def npz(folder: Path, x: Any, y: Any) -> Section:
    np.savez(folder / "data.npz", x=x, y=y)
    return {"source": {"type": "npz", "path": "data.npz"}}


def changed(values: Any, row: int, value: Any) -> np.ndarray:
    array = np.array(values, np.float64)
    array[row] = value
    return array


def pictures(
    folder: Path, kinds: tuple[str, ...] = ("rose", "iris"), wide: dict[str, int] | None = None
) -> Section:
    """Six pictures of 4 by 4 pixels of each kind, and others by name and width."""
    names = {f"flowers/{kind}/{index}.png": 4 for kind in kinds for index in range(6)}
    for name, width in {**names, **(wide or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, 4)).save(path)
    return {"source": {"type": "images", "path": "flowers"}}


def empty_folder(folder: Path, *inside: str) -> Section:
    for name in ("", *inside):
        (folder / "flowers" / name).mkdir()
    return {"source": {"type": "images", "path": "flowers"}}


def cut_parquet(folder: Path) -> Section:
    people().to_parquet(folder / "whole.parquet")
    content = (folder / "whole.parquet").read_bytes()
    (folder / "whole.parquet").unlink()
    return parquet(folder, content[: len(content) // 2])


def other_file(folder: Path, name: str, frame: pd.DataFrame) -> Section:
    frame.to_csv(folder / name, index=False)
    return {**csv(folder, people()), "split": {"test": name}}


SERIES = {"type": "sequences", "path": "series.csv", "id": "who", "time": "t", "values": ["a"]}


def series(folder: Path, *spoiled: tuple[int, str, Any]) -> Section:
    """Twenty series of three steps with a class each; then single values are spoiled."""
    rows = np.arange(60)
    frame = pd.DataFrame({"who": rows // 3, "t": rows % 3, "a": rows * 0.5, "y": rows // 3 % 2})
    for row, name, value in spoiled:
        frame[name] = frame[name].astype(object)
        frame.loc[row, name] = value
    frame.to_csv(folder / "series.csv", index=False)
    return {"source": {**SERIES, "target": "y"}}


NUMBERS = np.random.default_rng(1).normal(size=(40, 3))
CLASSES = np.arange(40) % 2

# What is written, and what is said of it.
REFUSED: dict[str, tuple[Callable[[Path], Section], list[str]]] = {
    "missing target": (
        lambda folder: csv(folder, people(), target="wage"),
        ["no column 'wage'; it has: age, job, y"],
    ),
    "missing target array": (
        lambda folder: {
            **npz(folder, NUMBERS, CLASSES),
            "source": {"type": "npz", "path": "data.npz", "y": "label"},
        },
        ["data.npz has no array named 'label'; it has: x, y"],
    ),
    "missing target in a file of its own": (
        lambda folder: other_file(folder, "late.csv", people().drop(columns="y")),
        ["late.csv has no column 'y', which people.csv has"],
    ),
    "one class": (
        lambda folder: csv(folder, people(y="no")),
        ["y has only one class, 'no'"],
    ),
    "one class of pictures": (
        lambda folder: pictures(folder, kinds=("rose",)),
        ["flowers has pictures of one class only, 'rose'"],
    ),
    "one value to regress on": (
        lambda folder: npz(folder, NUMBERS, np.full(40, 2.5)),
        ["y has only one value, 2.5"],
    ),
    "gap in the target": (
        lambda folder: csv(folder, people(y=changed(range(40), 7, np.nan))),
        ["column 'y' has 1 of 40 values missing, the first in row 7"],
    ),
    "NaN in the targets": (
        lambda folder: npz(folder, NUMBERS, changed(CLASSES, 9, np.nan)),
        ["y has 1 of 40 values that are NaN", "nan at row 9"],
    ),
    "infinite target": (
        lambda folder: csv(folder, people(y=changed(range(40), 3, np.inf))),
        ["y has 1 of 40 values that are NaN, infinite", "inf at row 3"],
    ),
    "gap in the label of a series": (
        lambda folder: series(folder, *[(row, "y", None) for row in (12, 13, 14)]),
        ["the target 'y' is missing for 1 of 20 series, the first is 4"],
    ),
    "pictures of two sizes": (
        lambda folder: pictures(folder, wide={"flowers/rose/7.png": 5}),
        ["iris/0.png is 4 high and 4 wide", "rose/7.png is 4 high and 5 wide", "data.source.size"],
    ),
    "empty folder": (empty_folder, ["flowers is empty; expected a folder for each class"]),
    "empty class folders": (
        lambda folder: empty_folder(folder, "rose", "iris"),
        ["the class folders in", "flowers hold no picture"],
    ),
    "no Parquet": (
        lambda folder: parquet(folder, b"PAR1 and no more"),
        ["people.parquet can't be read as a table"],
    ),
    "Parquet that is cut off": (cut_parquet, ["people.parquet can't be read as a table"]),
    "Parquet with lists": (
        lambda folder: parquet(folder, people(visits=[[1, 2]] * 40)),
        ["column 'visits' holds several values in row 0"],
    ),
    "Parquet with bytes": (
        lambda folder: parquet(folder, people(face=[b"text"] * 5 + [b"\xff\x00"] * 35)),
        ["column 'face' holds bytes in row 5"],
    ),
    "texts for numbers": (
        lambda folder: npz(folder, NUMBERS.astype(str), CLASSES),
        ["x holds strings", "expected real numbers"],
    ),
    "a text in a column of numbers": (
        lambda folder: csv(
            folder, people(size=["17"] * 39 + ["tall"]), columns={"size": "numeric"}
        ),
        ["column 'size' should be numeric", "'tall' in row 39"],
    ),
    "a text in a series": (
        lambda folder: series(folder, (5, "a", "high")),
        ["'a' should be numeric, but is 'high' in series 1 at time 2"],
    ),
    "9 rows": (
        lambda folder: npz(folder, NUMBERS[:9], CLASSES[:9]),
        ["the data has 9 rows; expected at least 10"],
    ),
    "10 rows of 5 classes": (
        lambda folder: csv(folder, people(10, y=list("abcde") * 2)),
        ["class 'a' has 2 rows", "at least 3 of each class"],
    ),
    "constant columns alone": (
        lambda folder: csv(folder, people(age=1, job="chef")),
        ["no column is left to learn from; the table has: age, job, y"],
    ),
}

WARNED: dict[str, tuple[Callable[[Path], Section], list[str]]] = {
    "class in test alone": (
        lambda folder: other_file(
            folder, "late.csv", people(10, y=["no", "yes", "perhaps"] * 3 + ["no"])
        ),
        ["no row of train is of the class perhaps"],
    ),
    "class folder in test alone": (
        lambda folder: {
            **pictures(folder, wide={"late/tulip/0.png": 4}),
            "split": {"test": "late"},
        },
        ["no row of train is of the class tulip"],
    ),
    "constant column": (
        lambda folder: csv(folder, people(city="Rome")),
        ["column 'city' is constant"],
    ),
    "empty column": (
        lambda folder: csv(folder, people(city=np.nan)),
        ["column 'city' has no value in any row"],
    ),
    "an id of numbers": (
        lambda folder: csv(folder, people(number=range(100, 140))),
        ["column 'number' has another value in every row, as an id has"],
    ),
    "an id of texts": (
        lambda folder: csv(folder, people(code=[f"p{row:03}" for row in range(40)])),
        ["column 'code' has another value in every row, as an id has"],
    ),
    "an id in the order of the classes": (
        lambda folder: csv(folder, people(number=range(0, 120, 3), y=["no"] * 20 + ["yes"] * 20)),
        ["column 'number' tells the target by ranges of its own"],
    ),
    "a patient's id": (
        lambda folder: csv(folder, people(patient=np.arange(40) % 8)),
        ["column 'patient' tells the target without exception"],
    ),
    "numbers as texts": (
        lambda folder: parquet(folder, people(code=[f"{row % 7 + 10}" for row in range(40)])),
        ["column 'code' holds numbers as texts and is taken as numbers"],
    ),
    "a text among numbers": (
        lambda folder: csv(folder, people(size=["17", "18"] * 19 + ["19", "tall"])),
        [
            "column 'size' is taken as text because 1 of 40 values are no numbers",
            "'tall' in row 39",
        ],
    ),
}

SKLEARN = {
    name: {"source": {"type": "sklearn", "name": name}}
    for name in ("iris", "diabetes", "breast_cancer", "linnerud")
}

# Builder, arguments for it, data, and what is said.
BUILDER_ERRORS = {
    "raises": (
        "raises",
        {},
        "iris",
        ["the builder builders:raises raised ValueError", "builders.py, line 15"],
    ),
    "a layer": ("layer", {}, "iris", ["keras.Model", "Dense"]),
    "no call": (
        "never_built",
        {},
        "iris",
        ["builders:never_built", "does not have a `call()` method"],
    ),
    "binary": (
        "wrong_head",
        {"units": 3, "activation": "softmax"},
        "breast_cancer",
        ["(None, 3), expected (None, 1)"],
    ),
    "regression": ("wrong_head", {"units": 2}, "diabetes", ["(None, 2), expected (None, 1)"]),
    "several targets": ("wrong_head", {"units": 1}, "linnerud", ["(None, 1), expected (None, 3)"]),
}


@pytest.fixture
def command(inprocess_hpo: Hpo, forkserver: str, tmp_path: Path) -> Callable[..., Any]:
    """Runs a command on a study; nothing may be there afterwards that was not before."""

    def run(name: str, content: dict[str, Any]) -> Any:
        (tmp_path / "builders.py").write_text(BUILDERS)
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        before = files(tmp_path)
        done = inprocess_hpo(name, "study.yaml", HPO_FORKSERVER=forkserver)
        assert "Traceback" not in done.stderr
        assert files(tmp_path) == before
        return done

    return run


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_can_not_be_learned(name: str, command: Any, tmp_path: Path) -> None:
    write, words = REFUSED[name]
    done = command("submit", study(write(tmp_path)))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert [word for word in words if word not in done.stderr] == [], done.stderr


@pytest.mark.parametrize("name", WARNED)
def test_data_that_looks_wrong(name: str, command: Any, tmp_path: Path) -> None:
    write, words = WARNED[name]
    done = command("validate", study(write(tmp_path)))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [word for word in words if not any(word in line for line in said)] == [], said


@pytest.mark.parametrize("name", BUILDER_ERRORS)
def test_builders_that_do_not_fit(name: str, command: Any) -> None:
    builder, arguments, data, words = BUILDER_ERRORS[name]
    model = {"builder": f"builders:{builder}", "args": arguments}
    done = command("submit", study(SKLEARN[data], model=model))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def test_ten_rows_are_enough(command: Any, tmp_path: Path) -> None:
    done = command("validate", study(npz(tmp_path, NUMBERS[:10], CLASSES[:10])))
    assert done.returncode == 0, done.stderr
    assert "binary on 6 rows (2 for validation, 2 for test)" in done.stdout


def test_a_model_without_an_input_is_built_by_its_first_rows(command: Any) -> None:
    done = command("validate", study(SKLEARN["iris"], model={"builder": "builders:unbuilt"}))
    assert done.returncode == 0, done.stderr
