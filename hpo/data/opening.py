"""Opens the data of a study: load, check, split, prepare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.data.checks import check_features, check_reshape, check_rows
from hpo.data.preprocessing import FittedPreprocessing, fit_preprocessing
from hpo.data.signature import DataSignature, fingerprint_of
from hpo.data.sources import RawData, load_source
from hpo.data.splits import Rows, SplitRows, split_rows
from hpo.data.targets import Targets, read_targets
from hpo.spec.models import DataSpec, Preprocess

PartName = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Part:
    """Rows that are ready to train on or to validate with.

    `x` is float32 (rows, *input_shape), prepared. `y` is int64 labels 0..K-1 (rows,) for
    classification, float32 (rows,) or (rows, targets) for regression.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]


@dataclass(frozen=True, eq=False)
class SearchData:
    """What a search may see: everything but the test rows."""

    train: Part
    validation: Part
    signature: DataSignature
    preprocessing: FittedPreprocessing


@dataclass(frozen=True, eq=False)
class RawPart:
    """One part as the source has it, for an exported model that prepares its own input.

    `x` (rows, *raw_shape) and `targets` have the source's dtype; `y` is the targets as `Part` has
    them; `rows` are row numbers in the source. `signature` tells whether this still is the data
    that was searched on.
    """

    x: NDArray[Any]
    targets: NDArray[Any]
    y: NDArray[Any]
    rows: Rows
    signature: DataSignature


@dataclass(frozen=True, eq=False)
class _Opened:
    raw: RawData
    targets: Targets
    split: SplitRows
    signature: DataSignature


def open_search_data(data: DataSpec, project: Path) -> SearchData:
    """Opens train and validation; paths in `data` are relative to `project`.

    Raises DataError when the data can't be used as it is.
    """
    opened = _open(data, project)
    train_x = opened.raw.x[opened.split.train]
    fitted = fit_preprocessing(train_x, data.preprocess)
    validation_x = opened.raw.x[opened.split.validation]
    return SearchData(
        train=Part(fitted.apply(train_x), opened.targets.y[opened.split.train]),
        validation=Part(fitted.apply(validation_x), opened.targets.y[opened.split.validation]),
        signature=opened.signature,
        preprocessing=fitted,
    )


def open_raw_part(data: DataSpec, project: Path, part: PartName) -> RawPart:
    """Opens one part without preparing its features. The test part is for the export alone.

    Raises DataError when the data can't be used as it is.
    """
    opened = _open(data, project)
    rows: Rows = getattr(opened.split, part)
    return RawPart(
        x=opened.raw.x[rows],
        targets=opened.raw.y[rows],
        y=opened.targets.y[rows],
        rows=rows,
        signature=opened.signature,
    )


def _open(data: DataSpec, project: Path) -> _Opened:
    raw = load_source(data.source, project)
    check_rows(raw)
    check_features(raw.x)
    check_reshape(raw.x.shape[1:], data.preprocess.reshape)
    targets = read_targets(raw.y, data.task, raw.class_names)
    split = split_rows(len(raw.x), data.split, targets.labels, targets.class_names or ())
    return _Opened(raw, targets, split, _signature(raw, targets, split, data.preprocess))


def _signature(
    raw: RawData, targets: Targets, split: SplitRows, preprocess: Preprocess
) -> DataSignature:
    arrays = (raw.x, raw.y, split.train, split.validation, split.test)
    return DataSignature(
        task=targets.task,
        input_shape=preprocess.reshape or raw.x.shape[1:],
        num_classes=targets.num_classes,
        num_outputs=targets.num_outputs,
        class_names=targets.class_names,
        rows=split.counts,
        class_counts=_class_counts(targets, split.train),
        fingerprint=fingerprint_of(arrays, preprocess.model_dump(mode="json")),
    )


def _class_counts(targets: Targets, rows: Rows) -> tuple[int, ...] | None:
    if targets.labels is None:
        return None
    counts = np.bincount(targets.labels[rows], minlength=targets.num_classes or 0)
    return tuple(counts.tolist())
