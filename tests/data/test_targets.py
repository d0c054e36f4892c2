from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpo.data.targets import read_targets
from hpo.errors import DataError


@pytest.mark.parametrize(
    ("y", "task", "encoded", "names"),
    [
        ([7, 3, 7, 3], "binary", [1, 0, 1, 0], ("3", "7")),
        ([True, False, True], "binary", [1, 0, 1], ("False", "True")),
        (["no", "yes"], "binary", [0, 1], ("no", "yes")),
        ([b"b", b"a"], "binary", [1, 0], ("a", "b")),
        ([10, -1, 5], "multiclass", [2, 0, 1], ("-1", "5", "10")),
        (["c", "a", "b"], "multiclass", [2, 0, 1], ("a", "b", "c")),
        ([[2], [1], [0]], "multiclass", [2, 1, 0], ("0", "1", "2")),
    ],
)
def test_auto_reads_classes(y: Any, task: str, encoded: list[int], names: tuple[str, ...]) -> None:
    targets = read_targets(np.array(y))
    assert targets.task == task
    assert targets.y.tolist() == encoded
    assert targets.y.dtype == np.int64
    assert targets.class_names == names
    assert targets.num_classes == len(names)
    assert targets.num_outputs == (1 if task == "binary" else len(names))


@pytest.mark.parametrize(
    ("y", "outputs"), [([0.5, 1.5], 1), ([1.0, 2.0], 1), ([[0.5], [1]], 1), ([[1.0, 2], [3, 4]], 2)]
)
def test_auto_reads_floats_as_regression_even_when_whole(y: Any, outputs: int) -> None:
    targets = read_targets(np.array(y))
    assert targets.task == "regression"
    assert targets.y.dtype == np.float32
    assert targets.y.shape == np.shape(y)
    assert targets.num_outputs == outputs
    assert targets.labels is None
    assert targets.num_classes is None


def test_given_class_names_win() -> None:
    assert read_targets(np.array([0, 1]), class_names=("off", "on")).class_names == ("off", "on")


def test_asked_for_tasks() -> None:
    assert read_targets(np.array([0, 1]), "multiclass").num_outputs == 2
    assert read_targets(np.array([3, 4, 5]), "regression").y.dtype == np.float32
    whole = read_targets(np.array([2.0, 1.0, 5.0]), "multiclass")
    assert whole.class_names == ("1", "2", "5")


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([0, 1, 2], "binary", "is binary, but y has 3 classes"),
        (["a", "b"], "regression", "2 of 2 rows of y hold no numbers, the first is 'a' in row 0"),
        (["1.5", "n.a.", "2"], "regression", "1 of 3 rows .*, the first is 'n.a.' in row 1"),
        ([["1", "2"], ["3", ""]], "regression", "1 of 2 rows .*, the first is '' in row 1"),
        (["1", "2"], "regression", "is regression, but y holds labels .* save y as floats"),
        ([True, False], "regression", "is regression, but y holds labels"),
        ([0.5, 1.0], "binary", "is binary, but y holds fractions"),
        ([0.5, 1.0], "multiclass", "is multiclass, but y holds fractions"),
        ([4, 4], "auto", "only one class, '4'"),
        ([4.0, 4.0], "binary", "only one class, '4'"),
        ([[0, 3], [1, 0]], "auto", r"shape \(2, 2\).*columns of 0 and 1.*task: regression"),
        (np.eye(3), "binary", "is binary, but y has 3 classes"),
        ([[0, 1], [1, 1]], "multiclass", "multiclass, but a row of y may have several"),
        ([[0, 1], [1, 1], [1, 1]], "auto", "the label 'label_1' is the same in every row"),
        ([0, 1], "multilabel", r"multilabel, but y has shape \(2,\)"),
        ([[[1.0]], [[2.0]]], "auto", r"shape \(2, 1, 1\).*\(rows, targets\)"),
        (np.zeros((2, 0)), "auto", r"shape \(2, 0\)"),
        ([1j, 2j], "auto", "y holds complex numbers"),
        (np.zeros(3, dtype="M8[s]"), "auto", "y holds dates"),
        ([0.5, np.nan], "auto", "y has 1 of 2 values that are NaN"),
        ([4.0, 4.0], "auto", "y has only one value, 4; expected at least two"),
        ([3, 3], "regression", "y has only one value, 3"),
        ([[1.5, 2.0], [2.5, 2.0]], "auto", "column 1 of y has only one value, 2"),
    ],
)
def test_targets_that_cannot_be_used(y: Any, task: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_targets(np.array(y), task)


def test_a_target_that_never_changes_is_named() -> None:
    with pytest.raises(DataError, match="the target 'b' has only one value, 2"):
        read_targets(np.array([[1.5, 2.0], [2.5, 2.0]]), "auto", ("a", "b"))


def test_columns_of_zero_and_one_are_labels() -> None:
    targets = read_targets(np.array([[0, 1, 1], [1, 1, 0], [0, 0, 1]]), "auto", ("a", "b", "c"))
    assert (targets.task, targets.class_names, targets.num_outputs) == (
        "multilabel",
        ("a", "b", "c"),
        3,
    )
    assert targets.labels is None
    assert targets.y.dtype == np.float32


def test_one_hot_columns_are_classes() -> None:
    targets = read_targets(np.eye(3, dtype=bool)[[2, 0, 1, 2]])
    assert targets.task == "multiclass"
    assert targets.y.tolist() == [2, 0, 1, 2]
    floats = read_targets(np.eye(3)[[2, 0, 1, 2]])
    assert (floats.task, floats.y.tolist()) == ("multiclass", [2, 0, 1, 2])
    labels = read_targets(np.array([[0, 1.0], [1, 1], [1, 0]]))
    assert (labels.task, labels.num_outputs) == ("multilabel", 2)
    assert read_targets(np.eye(3)[[2, 0, 1, 2]], "regression").task == "regression"
    two_way = read_targets(np.eye(2)[[1, 0, 1]], "binary", ("no", "yes"))
    assert (two_way.task, two_way.num_outputs, two_way.y.tolist()) == ("binary", 1, [1, 0, 1])
