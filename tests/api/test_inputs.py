"""What `hpo.tune` makes of its data: a section of a study file, and the file that it names."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.api.inputs import DataInput, read_input
from hpo.data import open_search_data
from hpo.errors import DataError
from hpo.spec.models import DataSpec

X = np.arange(40.0).reshape(20, 2)
Y = np.repeat([0, 1], 10)
FRAME = pd.DataFrame({"size": X[:, 0], "colour": ["red", "blue"] * 10, "answer": Y})


def read(data: Any, folder: Path, target: Any = None, columns: Any = ()) -> DataInput:
    return read_input(data, target, folder / "artifacts" / "study", folder, columns)


def opened(given: DataInput, folder: Path) -> Any:
    given.write()
    return open_search_data(DataSpec.model_validate(given.section), folder)


def batches() -> Any:
    return [(X[:8], Y[:8]), (X[8:], Y[8:])]


@pytest.mark.parametrize(
    "data",
    [(X, Y), [X.tolist(), Y.tolist()], {"x": X, "y": Y}, (each for each in batches())],
    ids=["pair", "lists", "mapping", "batches"],
)
def test_arrays_become_a_file(data: Any, tmp_path: Path) -> None:
    given = read(data, tmp_path)
    source = given.section["source"]
    assert source["path"].startswith("artifacts/study/data-")
    assert not (tmp_path / "artifacts").exists()
    assert opened(given, tmp_path).signature.rows == (12, 4, 4)
    assert given.write() == []


def test_other_values_make_another_file(tmp_path: Path) -> None:
    paths = {read((x, Y), tmp_path).section["source"]["path"] for x in (X, X.copy(), X + 1)}
    assert len(paths) == 2


def test_several_inputs_and_a_column_to_split_by(tmp_path: Path) -> None:
    data = {"x": {"a": X, "y": X[:, :1]}, "y": Y, "who": np.arange(20) // 2}
    given = read(data, tmp_path, columns=["who"])
    given.section["split"] = {"group": "who"}
    assert opened(given, tmp_path).signature.input_shape == {"a": (2,), "y": (1,)}


def test_texts_are_labels(tmp_path: Path) -> None:
    labels = pd.Series(["no", "yes"] * 10)
    assert opened(read((X, labels), tmp_path), tmp_path).signature.class_names == ("no", "yes")


def test_a_frame_with_its_target(tmp_path: Path) -> None:
    signature = opened(read(FRAME, tmp_path, target="answer"), tmp_path).signature
    assert set(signature.form["columns"]) == {"size", "colour"}


def test_columns_that_are_numbered(tmp_path: Path) -> None:
    frame = pd.DataFrame(np.c_[X, Y, Y[::-1]])
    assert read(frame, tmp_path, target=2).section["source"]["target"] == "2"
    given = read(frame, tmp_path, target=[np.int64(2), 3])
    assert given.section["source"]["target"] == ["2", "3"]
    assert set(opened(given, tmp_path).signature.form["columns"]) == {"0", "1"}


def test_a_frame_and_a_column_beside_it(tmp_path: Path) -> None:
    given = read((FRAME[["size", "colour"]], FRAME["answer"]), tmp_path)
    assert given.section["source"]["target"] == "answer"
    assert opened(given, tmp_path).signature.task == "binary"


def test_ready_parts(tmp_path: Path) -> None:
    given = read({"train": (X, Y), "validation": (X[::2], Y[::2]), "test": (X + 1, Y)}, tmp_path)
    assert len(given.write()) == 3
    assert opened(given, tmp_path).signature.rows == (20, 10, 20)


def test_what_can_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("my_data")
    module.__file__ = "my_data.py"
    exec("def load(): ...", vars(module))
    monkeypatch.setitem(sys.modules, "my_data", module)
    named = {"source": {"type": "python", "load": "my_data:load"}}
    assert read(module.load, tmp_path) == read("my_data:load", tmp_path) == DataInput(named, {})


def test_a_function_of_the_notebook_is_called(tmp_path: Path) -> None:
    assert read(lambda: (X, Y), tmp_path).section == read((X, Y), tmp_path).section

    def broken() -> Any:
        raise OSError("no such table")

    with pytest.raises(DataError, match=r"function for data raised OSError: no such table \(.*\)"):
        read(broken, tmp_path)


@pytest.mark.keras
def test_rows_of_several_lengths_in_tensorflow(tmp_path: Path) -> None:
    import tensorflow as tf

    x = tf.ragged.constant([[1.0, 2.0], [3.0]] * 10)
    batches = tf.data.Dataset.from_tensor_slices((x, Y)).batch(5)
    for data in ((x, Y), batches):
        with pytest.raises(DataError, match=r"x is a RaggedTensor, make it x.to_tensor\(np.nan\)"):
            read(data, tmp_path)


def test_a_section_stays_as_it_is(tmp_path: Path) -> None:
    section = {"source": {"type": "sklearn", "name": "iris"}, "task": "multiclass"}
    assert read(section, tmp_path) == DataInput(section, {})


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        (FRAME, None, "name the column to learn, such as target='answer'"),
        ((X, Y), "answer", "names a column of a DataFrame, received tuple"),
        (X, None, "data is of the type ndarray; expected"),
        (42, None, "data is of the type int; expected"),
        ({"train": (X, Y), "val": (X, Y)}, None, "the part 'val'; expected train, validation"),
        ((np.array([object()] * 20), Y), None, "x must be an array of numbers or texts"),
        (([[1], [2, 3]], [0, 1]), None, "x is no array: .* pad shorter ones with NaN"),
        ([1, 2, 3], None, "yields int; expected batches"),
        ([], None, "yields no batch"),
        ((X, Y, Y), None, r"a tuple of 3; expected \(x, y\)\. Weights of rows .* not supp"),
        ([(X, Y, Y)] * 3, None, r"batches of 3 parts; expected .* \(x, y\)\. Weights of rows"),
        ([(X, Y, Y, Y)] * 3, None, r"batches of 4 parts; expected batches \(x, y\)$"),
        ({"x": X, "y": Y, "sample_weight": Y}, None, "nothing uses the array 'sample_weight'"),
        ({"train": {"x": X, "y": Y, "w": Y}, "test": (X, Y)}, None, "nothing uses the array 'w'"),
        (
            (X, {"a": Y, "b": Y}),
            None,
            "a mapping of a, b; expected one array: a model with several",
        ),
        ([(X, {"a": Y})] * 3, None, "y is a mapping of a; expected one array"),
        (([X, X], Y), None, "x is a list of 2 arrays; name the inputs of the model"),
        ([((X, X[:, :1]), Y)] * 3, None, "x is a tuple of 2 arrays; name the inputs of the model"),
        ({"source": {"type": "sklearn"}}, "y", r"name the target in data\['source'\]"),
        ((FRAME, FRAME["answer"]), None, "x has a column 'answer' as y has"),
    ],
)
def test_what_is_no_data(data: Any, target: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(data, tmp_path, target)
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_parquet_does_not_hold(tmp_path: Path) -> None:
    frame = FRAME.assign(colour=[1, "a"] * 10)
    with pytest.raises(DataError, match=r"can't be written as Parquet: .*colour"):
        read(frame, tmp_path, target="answer").write()
