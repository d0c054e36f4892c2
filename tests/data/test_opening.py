from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.data import SearchData, open_raw_part, open_search_data
from hpo.errors import DataError
from hpo.spec.models import DataSpec

Save = Callable[..., DataSpec]
Table = tuple[np.ndarray, np.ndarray]

STANDARD = {"normalize": "standard"}
DIGITS = {
    "source": {"type": "sklearn", "name": "digits"},
    "split": {"seed": 7},
    "preprocess": {"normalize": "standard", "reshape": [8, 8, 1]},
}


def sklearn(name: str) -> DataSpec:
    return DataSpec.model_validate({"source": {"type": "sklearn", "name": name}})


@pytest.mark.parametrize(
    ("name", "task", "outputs", "classes", "rows"),
    [
        ("breast_cancer", "binary", 1, 2, (341, 114, 114)),
        ("wine", "multiclass", 3, 3, (106, 36, 36)),
        ("diabetes", "regression", 1, None, (266, 88, 88)),
        ("linnerud", "regression", 3, None, (12, 4, 4)),
    ],
)
def test_signature(
    name: str, task: str, outputs: int, classes: int | None, rows: tuple[int, int, int]
) -> None:
    data = open_search_data(sklearn(name), Path())
    signature = data.signature
    assert (signature.task, signature.num_outputs, signature.num_classes) == (
        task,
        outputs,
        classes,
    )
    assert signature.rows == rows
    assert data.train.x.shape == (rows[0], *signature.input_shape)
    assert data.validation.x.shape == (rows[1], *signature.input_shape)
    assert len(data.train.y) == rows[0]


@pytest.mark.parametrize(
    ("y", "task", "words"),
    [
        (np.arange(60) % 3.0, "auto", "y holds 3 different whole numbers.*`task: multiclass`"),
        (np.arange(60)[:, None] % 2.0, "auto", "y holds 2 different whole numbers.*`task: binary`"),
        (np.arange(60) % 3.0, "regression", None),
        (np.arange(60) % 3 + 0.5, "auto", None),
        (np.arange(60.0), "auto", None),
    ],
)
def test_few_whole_numbers_may_be_classes(
    save: Save, table: Table, tmp_path: Path, y: np.ndarray, task: str, words: str | None
) -> None:
    signature = open_search_data(save(table[0], y, task=task), tmp_path).signature
    assert signature.task == "regression"
    found = [each for each in signature.warnings if re.search(words or "whole numbers", each)]
    assert len(found) == (words is not None)


def test_numbers_that_float32_merges(save: Save, table: Table, tmp_path: Path) -> None:
    x, y = table
    x[:, 2] = 1_700_000_000 + 10 * np.arange(60)
    assert any(
        "column 2 of x has 60 different values, of which float32" in words
        for words in open_search_data(save(x, y), tmp_path).signature.warnings
    )


def test_rows_that_are_dropped_are_counted(save: Save, table: Table, tmp_path: Path) -> None:
    x, y = table
    x[[3, 7], 1] = np.nan
    signature = open_search_data(save(x, y, preprocess={"missing": "drop"}), tmp_path).signature
    assert "2 of 60 rows have values missing and are dropped" in signature.warnings
    x[:, 1] = np.nan
    with pytest.raises(DataError, match="all rows have values missing"):
        open_search_data(save(x, y, preprocess={"missing": "drop"}), tmp_path)


def test_a_column_of_the_split_with_an_axis_too_many(table: Table, tmp_path: Path) -> None:
    x, y = table
    source = {"type": "npz", "path": "data.npz"}
    parts = []
    for shape in ((60,), (60, 1)):
        np.savez(tmp_path / "data.npz", x=x, y=y, g=(np.arange(60) // 4).reshape(shape))
        data = DataSpec.model_validate({"source": source, "split": {"group": "g"}})
        parts.append(open_raw_part(data, tmp_path, "test").rows.tolist())
    assert parts[0] == parts[1]


def test_digits_as_pictures() -> None:
    data = open_search_data(DataSpec.model_validate(DIGITS), Path())
    assert data.signature.input_shape == data.preprocessing.input_shape == (8, 8, 1)
    assert data.signature.class_names == tuple("0123456789")
    assert data.signature.class_counts == tuple(np.bincount(data.train.y).tolist())
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == np.int64


def test_prepared_part_is_the_raw_part_prepared(save: Save, table: Table, tmp_path: Path) -> None:
    spec = save(*table, preprocess=STANDARD)
    data = open_search_data(spec, tmp_path)
    raw = open_raw_part(spec, tmp_path, "validation")
    np.testing.assert_array_equal(data.preprocessing.apply(raw.x), data.validation.x)
    np.testing.assert_array_equal(raw.y, data.validation.y)
    assert raw.signature == data.signature


def test_raw_parts_are_the_source(save: Save, table: Table, tmp_path: Path) -> None:
    x, labels = table
    names = np.array(["ant", "bee", "cat"])[labels]
    spec = save(x, names, preprocess=STANDARD)
    parts = [open_raw_part(spec, tmp_path, part) for part in ("train", "validation", "test")]
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(60))
    for part in parts:
        np.testing.assert_array_equal(part.x, x[part.rows])
        np.testing.assert_array_equal(part.targets, names[part.rows])
        np.testing.assert_array_equal(part.y, labels[part.rows])


def equal(one: SearchData, other: SearchData) -> bool:
    pairs = [(one.train, other.train), (one.validation, other.validation)]
    return one.preprocessing == other.preprocessing and all(
        np.array_equal(a.x, b.x) and np.array_equal(a.y, b.y) for a, b in pairs
    )


@pytest.mark.parametrize("normalize", ["standard", "minmax"])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_nothing_is_fitted_on_held_out_rows(
    save: Save, table: Table, tmp_path: Path, normalize: str, part: Any
) -> None:
    x, y = table
    spec = save(x, y, preprocess={"normalize": normalize})
    before = open_search_data(spec, tmp_path)
    x[open_raw_part(spec, tmp_path, part).rows] += 1e6
    save(x, y)
    after = open_search_data(spec, tmp_path)
    assert after.preprocessing == before.preprocessing
    np.testing.assert_array_equal(after.train.x, before.train.x)
    assert equal(after, before) == (part == "test")


def test_fitted_on_train_rows(save: Save, table: Table, tmp_path: Path) -> None:
    spec = save(*table, preprocess=STANDARD)
    data = open_search_data(spec, tmp_path)
    train = open_raw_part(spec, tmp_path, "train").x
    np.testing.assert_allclose(data.preprocessing.offset, train.mean(axis=0), rtol=1e-6)


def test_opens_the_same_twice(save: Save, table: Table, tmp_path: Path) -> None:
    spec = save(*table, preprocess=STANDARD)
    assert equal(open_search_data(spec, tmp_path), open_search_data(spec, tmp_path))


PRINT_FINGERPRINT = """
import sys
from collections.abc import Callable
from pathlib import Path
from hpo.data import open_search_data
from hpo.spec.models import DataSpec
spec = DataSpec.model_validate_json(sys.argv[1])
print(open_search_data(spec, Path(sys.argv[2])).signature.to_json())
print(sorted({"keras", "tensorflow", "keras_tuner"} & set(sys.modules)))
"""


def test_another_process_agrees_and_needs_no_keras(
    save: Save, table: Table, tmp_path: Path
) -> None:
    spec = save(*table, preprocess=STANDARD)
    arguments = [sys.executable, "-c", PRINT_FINGERPRINT, spec.model_dump_json(), str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    signature, imported = result.stdout.splitlines()
    assert signature == open_search_data(spec, tmp_path).signature.to_json()
    assert imported == "[]"


def fingerprint(spec: DataSpec, project: Path) -> str:
    return open_search_data(spec, project).signature.fingerprint


@pytest.mark.parametrize(
    "section",
    [
        {"split": {"seed": 1}},
        {"split": {"stratify": False}},
        {"preprocess": STANDARD},
        {"preprocess": {"reshape": [2, 2]}},
    ],
)
def test_fingerprint_changes_with_the_study_file(
    save: Save, table: Table, tmp_path: Path, section: dict[str, Any]
) -> None:
    before = fingerprint(save(*table), tmp_path)
    assert fingerprint(save(*table, **section), tmp_path) != before


def test_fingerprint_changes_with_one_value(save: Save, table: Table, tmp_path: Path) -> None:
    x, y = table
    before = fingerprint(save(x, y), tmp_path)
    x[59, 3] += 1e-9
    assert fingerprint(save(x, y), tmp_path) != before


def test_one_changed_label_changes_the_fingerprint(
    save: Save, table: Table, tmp_path: Path
) -> None:
    x, y = table
    before = fingerprint(save(x, y), tmp_path)
    y[0] = 1
    assert fingerprint(save(x, y), tmp_path) != before


def test_class_missing_from_train_counts_0(save: Save, table: Table, tmp_path: Path) -> None:
    x, y = table
    spec = save(x, y, split={"stratify": False})
    y[:] = 0
    y[open_raw_part(spec, tmp_path, "test").rows] = 1
    signature = open_search_data(save(x, y, split={"stratify": False}), tmp_path).signature
    assert signature.class_counts == (36, 0)


def bad_rows(x: np.ndarray, y: np.ndarray) -> Table:
    return x[:50], y


def bad_value(x: np.ndarray, y: np.ndarray) -> Table:
    x[5, 1] = np.nan
    return x, y


def bad_labels(x: np.ndarray, y: np.ndarray) -> Table:
    return x, y * 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(bad_rows, "50 rows and y has 60"), (bad_value, "row 5, index 1"), (bad_labels, "one class")],
)
def test_unusable_data_is_refused_by_both_doors(
    save: Save, table: Table, tmp_path: Path, spoil: Any, message: str
) -> None:
    spec = save(*spoil(*table))
    with pytest.raises(DataError, match=message):
        open_search_data(spec, tmp_path)
    with pytest.raises(DataError, match=message):
        open_raw_part(spec, tmp_path, "test")


def test_reshape_is_refused_before_anything_is_fitted(
    save: Save, table: Table, tmp_path: Path
) -> None:
    spec = save(*table, preprocess={"reshape": [3, 3]})
    with pytest.raises(DataError, match=r"\[3, 3\] does not fit"):
        open_raw_part(spec, tmp_path, "test")
