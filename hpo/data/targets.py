"""Targets: which task they pose, and the form in which Keras takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.checks import check_finite, name_of_kind
from hpo.data.signature import ResolvedTask
from hpo.errors import DataError
from hpo.spec.models import Task


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets ready to train on.

    For classification `y` is int64 of shape (rows,), labels 0..K-1 in the sorted order of the
    source's labels, named by `class_names`. For multilabel it is float32 of shape (rows, labels),
    0 or 1, its columns named by `class_names`. For regression `y` is float32 of shape (rows,) or
    (rows, targets) and `class_names` is None.
    """

    task: ResolvedTask
    y: NDArray[Any]
    class_names: tuple[str, ...] | None = None

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self.y if self.task in ("binary", "multiclass") else None

    @property
    def num_classes(self) -> int | None:
        return None if self.class_names is None else len(self.class_names)

    @property
    def num_outputs(self) -> int:
        if self.task == "multiclass":
            return self.num_classes or 0
        return 1 if self.y.ndim == 1 else int(self.y.shape[1])


def read_targets(
    y: NDArray[Any], task: Task = "auto", class_names: tuple[str, ...] | None = None
) -> Targets:
    """Reads the task off the targets, or holds them to the one that was asked for.

    auto: floats are regression, unless they are several columns of 0 and 1; everything else is
    classes. Floats are regression even when all of them are whole and few (a rating from 1 to 5):
    say `task: multiclass` to make classes of them. Two classes are binary, unless `task:
    multiclass` asks for a softmax over them. Several columns of 0 and 1 are multilabel; where each
    row has exactly one 1, they are classes in one-hot form.

    Raises DataError when the targets can't be used or contradict `task`.
    """
    if y.dtype.kind not in "biufUS":
        raise DataError(f"y holds {name_of_kind(y)}; expected numbers, booleans or strings.")
    check_finite(y, "y")
    columns = y.ndim == 2 and y.shape[1] > 1 and _is_zero_one(y)
    if task == "regression" or (task == "auto" and y.dtype.kind == "f" and not columns):
        return _read_values(y, class_names)
    if task == "multilabel" or columns:
        return _read_columns(y, task, class_names)
    return _read_classes(_discrete(y, task), task, class_names)


def _read_values(y: NDArray[Any], names: tuple[str, ...] | None) -> Targets:
    if y.dtype.kind in "US":
        _check_numbers(y)
    if y.dtype.kind not in "iuf":
        raise DataError(
            f"`data.task` is regression, but y holds labels (dtype {y.dtype}); expected numbers. "
            "Set task: auto, or save y as floats."
        )
    if y.ndim > 2 or not y.size:
        raise DataError(
            f"y has shape {y.shape}; expected (rows,) or (rows, targets) for regression."
        )
    _check_varies(y, names)
    return Targets("regression", y.astype(np.float32, copy=False))


def _check_numbers(y: NDArray[Any]) -> None:
    """Raises DataError for the first of texts that is no number."""
    rows = y.reshape(len(y), -1)
    wrong = [index for index, row in enumerate(rows) if not all(map(_is_number, row))]
    if not wrong:
        return
    text = next(_name(each) for each in rows[wrong[0]] if not _is_number(each))
    raise DataError(
        f"`data.task` is regression, but {len(wrong)} of {len(y)} rows of y hold no numbers, the "
        f"first is {text!r} in row {wrong[0]}, counted from 0. Mend these rows or leave them out, "
        "or set task: auto for classes."
    )


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_varies(y: NDArray[Any], names: tuple[str, ...] | None) -> None:
    """Raises DataError when a target has one value in all rows: the like of a single class."""
    columns = y.reshape(len(y), -1)
    same = (columns == columns[0]).all(axis=0)
    if not same.any():
        return
    index = int(same.argmax())
    name = f"the target {names[index]!r}" if names else f"column {index} of y"
    raise DataError(
        f"{'y' if y.ndim == 1 else name} has only one value, {columns[0, index]:g}; expected at "
        "least two. Check the selection of rows."
    )


def _is_zero_one(y: NDArray[Any]) -> bool:
    return y.dtype.kind in "biuf" and bool(np.isin(y, (0, 1)).all())


def _read_columns(y: NDArray[Any], task: Task, names: tuple[str, ...] | None) -> Targets:
    """One column of 0 and 1 a label, or a class in one-hot form."""
    if y.ndim != 2 or y.shape[1] < 2 or not _is_zero_one(y):
        raise DataError(
            f"`data.task` is multilabel, but y has shape {y.shape} and dtype {y.dtype}; expected "
            "(rows, labels) of 0 and 1, with at least two labels."
        )
    names = names or tuple(f"label_{index}" for index in range(y.shape[1]))
    if task != "multilabel" and bool((y.sum(axis=1) == 1).all()):
        _check_classes(np.asarray(names), task)
        one_of_two: ResolvedTask = "binary" if task == "binary" else "multiclass"
        return Targets(one_of_two, y.argmax(axis=1).astype(np.int64), names)
    if task not in ("auto", "multilabel"):
        raise DataError(
            f"`data.task` is {task}, but a row of y may have several of its {y.shape[1]} labels; "
            "set task: multilabel."
        )
    empty = [name for name, column in zip(names, y.T, strict=True) if not 0 < column.sum() < len(y)]
    if empty:
        raise DataError(f"the label {empty[0]!r} is the same in every row; leave it out")
    return Targets("multilabel", y.astype(np.float32), names)


def _discrete(y: NDArray[Any], task: Task) -> NDArray[Any]:
    if y.dtype.kind != "f":
        return y
    if not np.array_equal(y, np.round(y)):
        raise DataError(
            f"`data.task` is {task}, but y holds fractions (dtype {y.dtype}); expected class "
            "labels. Set task: regression, or save y as integers or strings."
        )
    return y.astype(np.int64)


def _read_classes(y: NDArray[Any], task: Task, names: tuple[str, ...] | None) -> Targets:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"y has shape {y.shape}; expected (rows,) for class labels, or columns of 0 and 1. "
            "For several numbers a sample set task: regression."
        )
    classes, labels = np.unique(y, return_inverse=True)
    _check_classes(classes, task)
    if names is None or len(names) != len(classes):
        names = tuple(_name(each) for each in classes)
    two_way = len(classes) == 2 and task != "multiclass"
    return Targets("binary" if two_way else "multiclass", labels.astype(np.int64), names)


def _check_classes(classes: NDArray[Any], task: Task) -> None:
    if len(classes) == 1:
        raise DataError(
            f"y has only one class, {_name(classes[0])!r}; expected at least two. "
            "Check the selection of rows."
        )
    if task == "binary" and len(classes) != 2:
        raise DataError(
            f"`data.task` is binary, but y has {len(classes)} classes; expected 2. "
            "Set task: multiclass, or merge classes."
        )


def _name(label: Any) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)
