"""Tables: their rows as features and targets; what each column holds is found here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.checks import words_of_dropped
from hpo.data.columns import (
    ColumnSpecs,
    check_values,
    column_array,
    column_specs,
)
from hpo.data.features import Array
from hpo.data.leaks import columns_with_the_answer
from hpo.data.precision import columns_told_apart_no_more
from hpo.data.raw import RawData, SourceFiles
from hpo.data.tablefile import check_column, column_names, read_codes, read_frame, text_columns
from hpo.errors import DataError
from hpo.spec.models import DataSpec, Preprocess, TableSource

_NAMES = ("categorical", "text")


def load_table(source: TableSource, files: SourceFiles, data: DataSpec, project: Path) -> RawData:
    """The rows of a table, and of tables of their own for validation and test.

    Raises DataError when a file can't be read or a column is not there.
    """
    paths = [project / path for _, path in files.files]
    kinds = {name: getattr(said, "kind", said) for name, said in source.columns.items()}
    names = [name for name, kind in kinds.items() if kind in _NAMES]
    numbers = [name for name, kind in kinds.items() if kind not in _NAMES]
    frames = [read_codes(path, data, source.target, names, numbers) for path in paths]
    # What is a text in one file may look like numbers in another: the codes 01 and 02 beside A3.
    texts = {name for frame in frames for name in text_columns(frame)}
    if any(texts & {*frame.columns} - {*text_columns(frame)} for frame in frames):
        frames = [read_frame(path, texts) for path in paths]
    for frame, (_, path) in zip(frames, files.files, strict=True):
        _check_same_columns(frames[0], frame, files.files[0][1], path)
    frame = pd.concat(frames, ignore_index=True)
    parts = files.parts([len(each) for each in frames])
    return from_frame(frame, source, files.columns, data.preprocess, parts)


def from_frame(
    frame: pd.DataFrame,
    source: Any,
    split_columns: tuple[str, ...],
    preprocess: Preprocess,
    parts: Array | None,
) -> RawData:
    """Rows of a DataFrame; `source` says target, features and kinds of columns.

    Raises DataError when a column is not there or can't be used.
    """
    targets = [source.target] if isinstance(source.target, str) else list(source.target)
    chosen = getattr(source, "features", None)
    excluded = list(getattr(source, "exclude", ()))
    for name in (*targets, *(chosen or ()), *excluded, *source.columns, *split_columns):
        check_column(frame, name)
    _check_said_once(targets, chosen or (), excluded, source.columns)
    features = list(chosen) if chosen else _all_but(frame, targets, excluded, split_columns)
    check_targets(frame, targets, features)
    dropping = preprocess.missing == "drop"
    specs, warnings = column_specs(frame[features], source.columns, dropping=dropping)
    if not specs:
        raise DataError(f"no column is left to learn from; the table has: {column_names(frame)}")
    if dropping:
        frame, parts, words = _without_missing(frame, list(specs), parts)
        warnings += words
    y = target_array(frame, targets)
    x = {name: column_array(frame[name], spec) for name, spec in specs.items()}
    measured = {name: x[name] for name in x if specs[name].kind in ("numeric", "date")}
    return RawData(
        x=x,
        y=y,
        class_names=tuple(targets) if len(targets) > 1 else None,
        form=_form(specs, frame),
        columns={name: column_values(frame[name]) for name in split_columns},
        parts=parts,
        warnings=(
            *warnings,
            *columns_told_apart_no_more(frame, measured),
            *columns_with_the_answer(frame[list(specs)], y),
        ),
    )


def check_targets(frame: pd.DataFrame, targets: list[str], features: list[str]) -> None:
    """Raises DataError when a target is a feature too, has gaps or holds no single values."""
    both = sorted(set(targets) & set(features))
    if both:
        raise DataError(f"the target {both[0]!r} is among the features; leave it out there")
    for name in targets:
        check_values(frame[name])
        missing = frame[name].isna()
        if missing.any():
            row = int(missing.to_numpy().argmax())
            raise DataError(
                f"the target column {name!r} has {int(missing.sum())} of {len(frame)} values "
                f"missing, the first in row {row}, counted from 0. Drop those rows or fill them "
                "in. Missing is what is empty, and texts such as None, NA and null."
            )


def target_array(frame: pd.DataFrame, targets: list[str]) -> Array:
    """The targets as (rows,) for one column, (rows, columns) for several.

    Raises DataError when several hold anything but numbers.
    """
    arrays = [_plain(frame[name]) for name in targets]
    if len(arrays) == 1:
        return arrays[0]
    kinds = {array.dtype.kind for array in arrays}
    if not kinds <= set("biuf"):
        raise DataError(
            f"the targets {', '.join(targets)} are several columns, so all of them must be "
            "numbers or true and false; for classes name one column"
        )
    return np.stack(arrays, axis=1)


def column_values(column: pd.Series[Any]) -> Array:
    """Values with a NumPy dtype: numbers, booleans, strings; dates, also those in texts.

    What is missing is NaN, NaT or an empty string. Raises DataError when a value is none of these.
    """
    check_values(column)
    column = _dates(column)
    if column.dtype.kind not in "biufM":
        column = column.astype(str).where(column.notna(), "")
    return _plain(column)


def _form(specs: ColumnSpecs, frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "type": "table",
        "columns": {name: spec.model_dump(mode="json") for name, spec in specs.items()},
        # A file to predict from is read so, too.
        "texts": text_columns(frame[list(specs)]),
    }


def _all_but(
    frame: pd.DataFrame, targets: list[str], excluded: list[str], split_columns: tuple[str, ...]
) -> list[str]:
    left_out = {*targets, *excluded, *split_columns}
    return [name for name in frame.columns if name not in left_out]


def _without_missing(
    frame: pd.DataFrame, features: list[str], parts: Array | None
) -> tuple[pd.DataFrame, Array | None, list[str]]:
    """The rows that have all values, and a word about the others."""
    whole = frame[features].notna().all(axis=1).to_numpy()
    words = words_of_dropped(whole, "rows")
    return frame[whole].reset_index(drop=True), None if parts is None else parts[whole], words


def _check_said_once(
    targets: Iterable[str], chosen: Iterable[str], excluded: list[str], kinds: Iterable[str]
) -> None:
    """Raises DataError when a column is asked for in two ways of which one would be forgotten."""
    for name in excluded:
        role = "target" if name in targets else "features" if name in chosen else None
        if role is not None:
            raise DataError(
                f"the column {name!r} stands in `exclude` and in `{role}`; leave one of them out"
            )
    told = sorted(set(kinds) & set(targets))
    if told:
        raise DataError(
            f"`columns` says what the target {told[0]!r} holds; that is for features. Leave it "
            "out there, and say with `data.task` what is to be learned."
        )


def _plain(column: pd.Series[Any]) -> Array:
    """Values with a NumPy dtype: numbers, booleans, dates or strings."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if column.dtype.kind not in "biufM":
        return column.astype(str).to_numpy(dtype=np.str_)
    # pandas has numbers that may be missing; where none is they are NumPy's.
    if column.hasnans and column.dtype.kind != "M":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy(dtype=getattr(column.dtype, "numpy_dtype", None))


def _dates(column: pd.Series[Any]) -> pd.Series[Any]:
    """Dates where the values that are there are texts that say dates; else the column as it is."""
    if column.dtype.kind in "biufM":
        return column
    dates = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
    present = column.notna()
    return dates if bool(present.any() and (dates.notna() == present).all()) else column


def _check_same_columns(first: pd.DataFrame, other: pd.DataFrame, name: str, path: str) -> None:
    for one, others, here, there in ((first, other, path, name), (other, first, name, path)):
        lacks = [column for column in one.columns if column not in others.columns]
        if lacks:
            raise DataError(
                f"{here} has no column {lacks[0]!r}, which {there} has; expected the same"
            )
