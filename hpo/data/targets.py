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
    source's labels, named by `class_names`. For regression `y` is float32 of shape (rows,) or
    (rows, targets) and `class_names` is None.
    """

    task: ResolvedTask
    y: NDArray[Any]
    class_names: tuple[str, ...] | None = None

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return None if self.task == "regression" else self.y

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

    auto: floats are regression, everything else is classes. Floats are regression even when all of
    them are whole and few (a rating from 1 to 5): say `task: multiclass` to make classes of them.
    Two classes are binary, unless `task: multiclass` asks for a softmax over them.

    Raises DataError when the targets can't be used or contradict `task`.
    """
    if y.dtype.kind not in "biufUS":
        raise DataError(f"y holds {name_of_kind(y)}; expected numbers, booleans or strings.")
    check_finite(y, "y")
    if task == "regression" or (task == "auto" and y.dtype.kind == "f"):
        return _read_values(y)
    return _read_classes(_discrete(y, task), task, class_names)


def _read_values(y: NDArray[Any]) -> Targets:
    if y.dtype.kind not in "iuf":
        raise DataError(
            f"`data.task` is regression, but y holds labels (dtype {y.dtype}); expected numbers. "
            "Set task: auto, or save y as floats."
        )
    if y.ndim > 2 or not y.size:
        raise DataError(
            f"y has shape {y.shape}; expected (rows,) or (rows, targets) for regression."
        )
    return Targets("regression", y.astype(np.float32))


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
            f"y has shape {y.shape}; expected (rows,) for class labels. Save one-hot labels as "
            "y.argmax(axis=1); for several numbers a sample set task: regression."
        )
    classes, labels = np.unique(y, return_inverse=True)
    _check_classes(classes, task)
    names = names or tuple(_name(each) for each in classes)
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
