"""What was read: rows, parts, columns, classes and what looks wrong; for a person to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo.data.checks import named_arrays
from hpo.data.columns import MISSING
from hpo.data.features import Array, Shape, take
from hpo.data.opening import OpenedData, open_data
from hpo.data.padding import is_padding
from hpo.data.signature import DataSignature
from hpo.spec.models import DataSpec


@dataclass(frozen=True)
class ColumnReport:
    """One column of a table, or one array; figures are those of the training rows.

    Attributes:
        kind: What a column holds, or an array's dtype.
        missing: Values that are missing.
        different: Different values; None where they were not counted.
        low: The smallest number, the first date, or the most frequent text; None where no value is
            there.
        high: The largest number or the last date; None for texts, and where no value is there.
    """

    name: str
    kind: str
    shape: Shape
    missing: int
    different: int | None
    low: float | str | None
    high: float | str | None


@dataclass(frozen=True)
class DataReport:
    """What a study would train on.

    Attributes:
        classes: By class or label, the rows of train, validation and test; None for regression.
        files: Plots that were drawn.
    """

    signature: DataSignature
    columns: tuple[ColumnReport, ...]
    classes: dict[str, tuple[int, int, int]] | None
    files: tuple[Path, ...]


def report_data(data: DataSpec, project: Path, plots: Path | None) -> DataReport:
    """Reads the data of a study as its trainers will; draws into the folder `plots`, if given.

    Raises DataError when the data can't be used as it is.
    """
    opened = open_data(data, project)
    files: tuple[Path, ...] = ()
    if plots is not None:
        from hpo.data.plots import draw_plots

        files = draw_plots(opened, plots)
    kinds = opened.raw.form.get("columns", {})
    padding = _padding(opened)
    columns = tuple(
        _report(name, array[opened.split.train], array.shape[1:], kinds, padding)
        for name, array in _named_arrays(opened)
    )
    return DataReport(opened.signature, columns, _classes(opened), files)


def _named_arrays(opened: OpenedData) -> list[tuple[str, Array]]:
    """The arrays, or the columns of sequences."""
    x, form = opened.raw.x, opened.raw.form
    if form["type"] != "sequences":
        return named_arrays(x)
    assert not isinstance(x, dict)
    return [(name, x[..., index]) for index, name in enumerate(form["values"])]


def _padding(opened: OpenedData) -> float:
    """The share of the training steps that only pad a sequence; they are not missing."""
    if not opened.raw.form.get("mask"):
        return 0.0
    return float(is_padding(take(opened.raw.x, opened.split.train)).mean())


def _report(
    name: str, train: Array, shape: Shape, kinds: Mapping[str, Mapping[str, str]], padding: float
) -> ColumnReport:
    kind = kinds[name]["kind"] if name in kinds else str(train.dtype)
    if train.dtype.kind == "U":
        values, counts = np.unique(train, return_counts=True)
        most = str(values[counts.argmax()])
        missing = int((train == MISSING).sum())
        return ColumnReport(name, kind, shape, missing, len(values) - bool(missing), most, None)
    missing = int(np.isnan(train).sum()) if train.dtype.kind == "f" else 0
    if missing == train.size:
        return ColumnReport(name, kind, shape, missing, 0, None, None)
    missing -= round(padding * train.size)
    different = len(np.unique(train[~np.isnan(train)])) if train.ndim == 1 else None
    low, high = float(np.nanmin(train)), float(np.nanmax(train))
    if kind == "date":
        return ColumnReport(name, kind, shape, missing, different, _date(low), _date(high))
    return ColumnReport(name, kind, shape, missing, different, low, high)


def _date(days: float) -> str:
    return str(np.datetime64("1970-01-01") + np.timedelta64(int(days), "D"))


def _classes(opened: OpenedData) -> dict[str, tuple[int, int, int]] | None:
    targets = opened.targets
    if targets.class_names is None:
        return None
    one_hot = (
        targets.y if targets.task == "multilabel" else np.eye(len(targets.class_names))[targets.y]
    )
    counts = [one_hot[rows].sum(axis=0).astype(int).tolist() for _, rows in opened.split.parts()]
    return {
        name: (counts[0][index], counts[1][index], counts[2][index])
        for index, name in enumerate(targets.class_names)
    }
