"""Columns of a table: what each holds, as arrays, and which of them look wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.data.checks import LARGEST
from hpo.data.features import Array
from hpo.data.kinds import TRUTHS, read_kind
from hpo.errors import DataError
from hpo.spec.models import Column, ColumnKind

# Keras keeps a vocabulary with a word a line, and no empty one.
MISSING = "[missing]"

ColumnSpecs = dict[str, Column]

_LARGEST_WHOLE = 2.0**53
# More than that are many; more than the fewer ones too, where they are more than half of the rows.
_MANY_VALUES, _SOME_VALUES = 200, 20
_TRUTHS = TRUTHS | {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
# Words of pandas for Python objects.
_NUMBERS = ("decimal", "floating", "integer", "mixed-integer-float")
_DAY = np.timedelta64(1, "D")


def column_specs(
    frame: pd.DataFrame, given: Mapping[str, ColumnKind | Column], *, dropping: bool = False
) -> tuple[ColumnSpecs, list[str]]:
    """How each column is used, those left out that tell nothing; and what a person should know.

    A column that the study file names is used as it says. `dropping` says that rows with a value
    missing will be dropped.

    Raises DataError when a column holds what has no place in a table.
    """
    specs: ColumnSpecs = {}
    warnings: list[str] = []
    for name in frame.columns:
        said = given.get(name)
        if getattr(said, "kind", said) == "ignore":
            continue
        check_values(frame[name])
        if isinstance(said, str):
            spec = Column(kind=said)
        elif said is not None:
            spec = said
        else:
            kind, warning = read_kind(name, frame[name], dropping=dropping)
            spec = Column(kind=kind)
            warnings += [warning] if warning else []
        if spec.kind != "ignore":
            specs[name] = spec
            warnings += _too_wide(name, frame[name], spec)
    return specs, warnings


def column_array(column: pd.Series[Any], spec: Column) -> Array:
    """A column as the exported model takes it.

    numeric and boolean: float32, NaN where missing. date: float32 days since 1970-01-01 in UTC.
    categorical and text: strings, `[missing]` where missing; whole numbers without a point.

    Raises DataError when values are not of the kind.
    """
    check_values(column)
    if spec.kind in ("categorical", "text"):
        return _strings(column)
    if spec.kind == "date":
        return _days(column)
    numbers = _truths(column) if spec.kind == "boolean" else pd.to_numeric(column, errors="coerce")
    _check_converted(column, numbers.isna(), spec.kind)
    _check_size(column, too_large(numbers))
    return numbers.to_numpy(dtype=np.float32, na_value=np.nan)


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with names that are texts, and numbers that are no Python objects.

    Raises DataError when two columns have one name.
    """
    frame = frame.rename(columns=str)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(f"two columns are named {twice[0]!r}; rename one of them")
    found = {
        str(name): pd.to_numeric(column)
        for name, column in frame.items()
        if column.dtype == object and _content(column) in _NUMBERS
    }
    return frame.assign(**found)


def too_large(numbers: pd.Series[Any]) -> NDArray[np.bool_]:
    """Which numbers are infinite, or beyond what a float32 can be computed with."""
    large: NDArray[np.bool_]
    large = np.abs(numbers.to_numpy(np.float64, na_value=np.nan)) > LARGEST
    return large


def shown(value: Any) -> str:
    """A value of a column as an error names it."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def check_values(column: pd.Series[Any]) -> None:
    """Raises DataError when a value is a list, a mapping or bytes that are no text."""
    if column.dtype != object or _content(column) == "string":
        return
    for row, value in enumerate(column):
        kind = _misplaced(value)
        if kind is not None:
            raise DataError(
                f"column {column.name!r} holds {kind} in row {row}, counted from 0; expected "
                "numbers, texts, dates, true or false. Make columns of it, or leave it out."
            )


def _content(column: pd.Series[Any]) -> str:
    """What Python objects are, in a word of pandas."""
    return str(pd.api.types.infer_dtype(column, skipna=True))


def _misplaced(value: Any) -> str | None:
    """What has no place in a table; None where the value has one."""
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:
            return "bytes"
    if isinstance(value, dict | list | tuple | set | np.ndarray):
        return "several values"
    return None


def _too_wide(name: str, column: pd.Series[Any], spec: Column) -> list[str]:
    count = column.nunique()
    if spec.kind != "categorical" or spec.encode != "one_hot" or spec.most is not None:
        return []
    if count <= max(_SOME_VALUES, min(_MANY_VALUES, len(column) / 2)):
        return []
    words = (
        f"column {name!r} has {count} different values in {len(column)} rows, each of which "
        f"becomes a feature; to have fewer write `columns: {{{name}: {{kind: categorical, encode: "
        "embed}}`, or hash"
    )
    return [words]


def _strings(column: pd.Series[Any]) -> Array:
    texts = column.astype(str)
    if column.dtype.kind == "f":
        # Whole numbers become floats in pandas when one of them, or a single other one, is no whole
        # number; what a value is called must not depend on others.
        whole = ((column % 1 == 0) & (column.abs() < _LARGEST_WHOLE)).fillna(False).astype(bool)
        texts = texts.mask(whole, column.where(whole).astype("Int64").astype(str))
    texts = texts.where(column.notna(), MISSING).str.replace(r"\s", " ", regex=True)
    return texts.mask(texts == "", MISSING).to_numpy(dtype=np.str_)


def _days(column: pd.Series[Any]) -> Array:
    moments = pd.to_datetime(
        column, format=None if column.dtype.kind == "M" else "ISO8601", errors="coerce", utc=True
    )
    _check_converted(column, moments.isna(), "date")
    days: Array = (moments.dt.tz_localize(None).to_numpy() - np.datetime64("1970-01-01")) / _DAY
    return days.astype(np.float32)


def _truths(column: pd.Series[Any]) -> pd.Series[Any]:
    if column.dtype.kind in "biuf":
        numbers = column.astype("Float64")
        return numbers.where(numbers.isin([0, 1]))
    return column.astype(str).str.lower().map(_TRUTHS)


def _check_converted(column: pd.Series[Any], missing: pd.Series[Any], kind: str) -> None:
    wrong = missing & column.notna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        expected = {
            "numeric": "a number",
            "boolean": "true or false, or 1 or 0",
            "date": "a date such as 2026-11-22",
        }[kind]
        raise DataError(
            f"column {column.name!r} should be {kind}, but {int(wrong.sum())} of {len(column)} "
            f"values are not; the first is {shown(column.iloc[row])} in row {row}, counted from 0. "
            f"Expected {expected}."
        )


def _check_size(column: pd.Series[Any], large: NDArray[np.bool_]) -> None:
    if large.any():
        row = int(large.argmax())
        raise DataError(
            f"column {column.name!r} has {int(large.sum())} of {len(column)} values that are "
            f"infinite or beyond {LARGEST:g}; the first is {shown(column.iloc[row])} in row {row}, "
            "counted from 0. Correct them, or leave them empty."
        )
