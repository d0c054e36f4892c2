"""Opens the data of a study: load, check, split, prepare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hpo.data.checks import (
    check_features,
    check_reshape,
    check_rows,
    check_table,
    named_arrays,
    words_of_dropped,
)
from hpo.data.chunks import chunks
from hpo.data.features import Array, Features, each_array, map_arrays, take
from hpo.data.joined import joined
from hpo.data.leaks import rows_on_two_sides
from hpo.data.padding import check_sequences, gaps, has_padding
from hpo.data.precision import arrays_told_apart_no_more
from hpo.data.prepared import prepared_rows, taken_targets
from hpo.data.preprocessing import FILLING, Preparation, fit_arrays, fit_sequences
from hpo.data.raw import RawData
from hpo.data.signature import DataSignature, fingerprint_of
from hpo.data.sources import load_source
from hpo.data.splits import Rows, SplitRows, split_rows
from hpo.data.targets import Targets, read_targets
from hpo.errors import DataError
from hpo.spec.models import Column, DataSpec, Preprocess, Task

PartName = Literal["train", "validation", "test"]

_FEW_NUMBERS = 10


@dataclass(frozen=True, eq=False)
class Part:
    """Rows that are ready to train on or to validate with.

    `x` is float32 (rows, *input_shape), prepared; by name where the model has several inputs, and
    whole numbers where an input is to be embedded. `y` is int64 labels 0..K-1 (rows,) for
    classification, float32 (rows, labels) of 0 and 1 for multilabel, float32 (rows,) or
    (rows, targets) for regression. What is large is mapped from a file and read-only.
    """

    x: Features
    y: Array


@dataclass(frozen=True, eq=False)
class SearchData:
    """What a search may see: everything but the test rows.

    Attributes:
        preprocessing: What the rows went through; None for data that another process has opened.
    """

    train: Part
    validation: Part
    signature: DataSignature
    preprocessing: Preparation | None


@dataclass(frozen=True, eq=False)
class RawPart:
    """One part as the source has it, for an exported model that prepares its own input.

    `x` (rows, *raw_shape) and `targets` have the source's dtype; `y` is the targets as `Part` has
    them; `rows` are row numbers in the source. `signature` tells whether this still is the data
    that was searched on.
    """

    x: Features
    targets: Array
    y: Array
    rows: Rows
    signature: DataSignature


@dataclass(frozen=True, eq=False)
class OpenedData:
    """Everything that was read, test rows included: for this room alone."""

    raw: RawData
    targets: Targets
    split: SplitRows
    preprocess: Preprocess
    preprocessing: Preparation
    signature: DataSignature

    def part(self, name: PartName) -> Part:
        rows: Rows = getattr(self.split, name)
        key = (self.signature.fingerprint, name)
        return Part(
            x=prepared_rows(self.preprocessing, self.raw.x, rows, key),
            # What targets look like is the task's, which the fingerprint does not know.
            y=taken_targets(self.targets.y, rows, (*key, self.targets.task)),
        )


def open_search_data(data: DataSpec, project: Path) -> SearchData:
    """Opens train and validation; paths in `data` are relative to `project`.

    Raises DataError when the data can't be used as it is.
    """
    opened = open_data(data, project)
    return SearchData(
        train=opened.part("train"),
        validation=opened.part("validation"),
        signature=opened.signature,
        preprocessing=opened.preprocessing,
    )


def open_raw_part(data: DataSpec, project: Path, part: PartName) -> RawPart:
    """Opens one part without preparing its features. The test part is for the export alone.

    Raises DataError when the data can't be used as it is.
    """
    opened = open_data(data, project)
    rows: Rows = getattr(opened.split, part)
    return RawPart(
        x=take(opened.raw.x, rows),
        targets=opened.raw.y[rows],
        y=opened.targets.y[rows],
        rows=rows,
        signature=opened.signature,
    )


def open_data(data: DataSpec, project: Path) -> OpenedData:
    """Loads, checks, splits and fits.

    Raises DataError when the data can't be used as it is.
    """
    raw = load_source(data, project)
    check_rows(raw)
    raw = replace(raw, columns={name: each.reshape(-1) for name, each in raw.columns.items()})
    if raw.form["type"] != "table":
        raw = _checked_arrays(raw, data.preprocess)
    elif isinstance(raw.x, dict):
        check_table(raw.x, gaps=_fills(raw, data.preprocess))
    # What is forecast are numbers, even where all of them are 0 and 1.
    task = "regression" if data.task == "auto" and "horizon" in raw.form else data.task
    targets = read_targets(raw.y, task, raw.class_names)
    split = split_rows(
        len(raw.y), data.split, targets.labels, targets.class_names or (), raw.columns, raw.parts
    )
    preprocessing = _fit(raw, split.train, data.preprocess)
    signature = _signature(data, raw, targets, split, preprocessing)
    return OpenedData(raw, targets, split, data.preprocess, preprocessing, signature)


def _checked_arrays(raw: RawData, preprocess: Preprocess) -> RawData:
    fills = preprocess.missing not in ("auto", "refuse")
    if preprocess.mask and raw.form["type"] == "arrays":
        raw = replace(raw, form={**raw.form, "mask": True})
    masked = raw.form.get("mask", False)
    check_features(raw.x, gaps=fills or masked)
    if masked:
        check_sequences(raw.x, gaps_allowed=fills)
    for _, array in named_arrays(raw.x):
        check_reshape(array.shape[1:], preprocess.reshape)
    if preprocess.missing != "drop":
        return raw
    missing = gaps if masked else np.isnan
    lacks = np.zeros(len(raw.y), np.bool_)
    for array in each_array(raw.x):
        for where, chunk in chunks(array):
            lacks[where] |= missing(chunk).reshape(len(chunk), -1).any(axis=1)
    if not lacks.any():
        return raw
    words = words_of_dropped(~lacks, "rows")
    whole = np.flatnonzero(~lacks)
    return replace(
        raw,
        warnings=(*raw.warnings, *words),
        x=map_arrays(lambda array: joined(chunk for _, chunk in chunks(array, whole)), raw.x),
        y=raw.y[whole],
        columns={name: column[whole] for name, column in raw.columns.items()},
        parts=None if raw.parts is None else raw.parts[whole],
    )


def _fit(raw: RawData, train: Rows, preprocess: Preprocess) -> Preparation:
    if raw.form["type"] != "table":
        if preprocess.crosses:
            raise DataError("`preprocess.crosses` is for the columns of a table")
        if raw.form.get("mask") and has_padding(raw.x):
            return fit_sequences(raw.x, preprocess, train)
        return fit_arrays(raw.x, preprocess, train)
    # Needs Keras, which arrays do not.
    from hpo.data.encoding import fit_table

    assert isinstance(raw.x, dict)
    if preprocess.reshape is not None or preprocess.mask:
        name = "mask" if preprocess.mask else "reshape"
        raise DataError(f"`preprocess.{name}` is for arrays; a table has columns")
    columns = {name: Column.model_validate(column) for name, column in raw.form["columns"].items()}
    return fit_table({name: each[train] for name, each in raw.x.items()}, columns, preprocess)


def _signature(
    data: DataSpec,
    raw: RawData,
    targets: Targets,
    split: SplitRows,
    preprocessing: Preparation,
) -> DataSignature:
    arrays = (*each_array(raw.x), raw.y, split.train, split.validation, split.test)
    form = dict(raw.form)
    if isinstance(raw.x, dict) and form["type"] == "arrays":
        form["inputs"] = sorted(raw.x)
    fills = _fills(raw, data.preprocess)
    if form["type"] != "table" and fills:
        form["gaps"] = True
    settings = [data.preprocess.model_dump(mode="json"), dict(form)]
    if form["type"] == "table":
        # Follows from the settings; in the fingerprint it would make older studies' data another.
        form["gaps"] = fills
    counts = _class_counts(targets, split.train)
    group = None if data.split.group is None else raw.columns[data.split.group]
    return DataSignature(
        task=targets.task,
        input_shape=preprocessing.input_shape,
        num_classes=targets.num_classes,
        num_outputs=targets.num_outputs,
        class_names=targets.class_names,
        rows=split.counts,
        class_counts=counts,
        fingerprint=fingerprint_of(arrays, settings),
        vocabulary_sizes=preprocessing.vocabulary_sizes,
        target_mean=_of_targets(np.mean, targets, split.train),
        target_std=_of_targets(np.std, targets, split.train),
        mask_value=preprocessing.mask_value,
        target_shape=raw.y.shape[1:],
        own_targets=form["type"] == "arrays" and data.source.type in ("npz", "npy", "python"),
        form=form,
        warnings=(
            *raw.warnings,
            *_close_numbers(raw),
            *_few_numbers(data.task, raw, targets),
            *rows_on_two_sides(raw.x, split, group),
            *_unseen_classes(targets, counts),
        ),
    )


def _fills(raw: RawData, preprocess: Preprocess) -> bool:
    """Whether the preparation fills in numbers that are missing."""
    by_default = preprocess.missing == "auto" and raw.form["type"] == "table"
    return by_default or preprocess.missing in FILLING


def _of_targets(
    figure: Callable[..., Any], targets: Targets, train: Rows
) -> tuple[float, ...] | None:
    if targets.task != "regression":
        return None
    y = targets.y[train].reshape(len(train), -1)
    return tuple(figure(y, axis=0, dtype=np.float64).tolist())


def _class_counts(targets: Targets, rows: Rows) -> tuple[int, ...] | None:
    if targets.task == "multilabel":
        return tuple(targets.y[rows].sum(axis=0).astype(int).tolist())
    if targets.labels is None:
        return None
    counts = np.bincount(targets.labels[rows], minlength=targets.num_classes or 0)
    return tuple(counts.tolist())


def _close_numbers(raw: RawData) -> list[str]:
    """Words about arrays; tables and series have read theirs as float32."""
    return arrays_told_apart_no_more(dict(named_arrays(raw.x)))


def _few_numbers(task: Task, raw: RawData, targets: Targets) -> list[str]:
    """A word about quantities that may be classes that were saved as floats."""
    if task != "auto" or targets.task != "regression" or targets.num_outputs > 1:
        return []
    values = np.unique(raw.y)
    few = len(values) <= min(_FEW_NUMBERS, len(raw.y) // 2)
    if "horizon" in raw.form or not few or not np.array_equal(values, np.round(values)):
        return []
    classes = "binary" if len(values) == 2 else "multiclass"
    words = (
        f"y holds {len(values)} different whole numbers, saved as floats, and is taken as numbers "
        f"to predict (regression); `task: {classes}` makes classes of them"
    )
    return [words]


def _unseen_classes(targets: Targets, counts: tuple[int, ...] | None) -> list[str]:
    unseen = [
        name
        for name, count in zip(targets.class_names or (), counts or (), strict=True)
        if not count
    ]
    if not unseen:
        return []
    return [f"no row of train is of the class {', '.join(unseen)}, so no model can learn it"]
