"""Columns of a table: what each holds, as arrays, and which of them look wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.features import Array
from hpo.errors import DataError
from hpo.spec.models import Column, ColumnKind

# Keras keeps a vocabulary with a word a line, and no empty one.
MISSING = "[missing]"

ColumnSpecs = dict[str, Column]

_LARGEST_WHOLE = 2.0**53
_WORDS_OF_TEXT = 4
_MANY_VALUES = 200
_TRUTHS = {"true": 1.0, "false": 0.0}
# Words of pandas for Python objects.
_NUMBERS = ("decimal", "floating", "integer", "mixed-integer-float")
_DAY = np.timedelta64(1, "D")


def column_specs(
    frame: pd.DataFrame, given: Mapping[str, ColumnKind | Column]
) -> tuple[ColumnSpecs, list[str]]:
    """How each column is used, those left out that tell nothing; and what a person should know.

    A column that the study file names is used as it says.

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
            kind, warning = _read_kind(name, frame[name])
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


def _read_kind(name: str, column: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    values = column.dropna()
    if not len(values):
        return "ignore", f"column {name!r} has no value in any row and is left out"
    if values.nunique() <= 1:
        return "ignore", f"column {name!r} is constant, so it tells nothing and is left out"
    if isinstance(column.dtype, pd.CategoricalDtype) and not values.is_unique:
        return "categorical", None
    if column.dtype.kind == "b":
        return "boolean", None
    if column.dtype.kind in "iuf":
        return _read_numbers(name, column)
    if column.dtype.kind == "M":
        return "date", None
    if column.dtype.kind == "m":
        raise DataError(f"column {name!r} holds time spans; expected numbers, texts or dates")
    return _read_texts(name, values.astype(str))


def _read_numbers(name: str, column: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    if column.dtype.kind in "iu" and column.is_unique and not column.hasnans:
        ordered = column.to_numpy()
        if int(ordered.max()) - int(ordered.min()) == len(ordered) - 1:
            return "ignore", _looks_like_id(name, "numeric")
    return "numeric", None


def _read_texts(name: str, values: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    if values.str.lower().isin(list(_TRUTHS)).all():
        return "boolean", None
    # Before dates: 1007 and 20000101 would be some.
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all():
        return "numeric", (
            f"column {name!r} holds numbers as texts and is taken as numbers; where they are codes "
            f"write `columns: {{{name}: categorical}}`"
        )
    if pd.to_datetime(values, format="ISO8601", errors="coerce", utc=True).notna().all():
        return "date", None
    if numbers.notna().mean() >= 0.9:
        wrong = values[numbers.isna()]
        return "categorical", (
            f"column {name!r} is taken as text because {len(wrong)} of {len(values)} values are no "
            f"numbers, the first is {wrong.iloc[0]!r} in row {wrong.index[0]}; correct them, or "
            "leave them empty"
        )
    words = values.map(lambda value: len(value.split())).mean()
    if words >= _WORDS_OF_TEXT and values.nunique() > len(values) / 2:
        return "text", None
    if values.is_unique:
        return "ignore", _looks_like_id(name, "categorical")
    return "categorical", None


def _looks_like_id(name: str, kind: str) -> str:
    return (
        f"column {name!r} has another value in every row, as an id has, and is left out; "
        f"to keep it write `columns: {{{name}: {kind}}}`"
    )


def _too_wide(name: str, column: pd.Series[Any], spec: Column) -> list[str]:
    count = column.nunique()
    if spec.kind != "categorical" or spec.encode != "one_hot" or spec.most is not None:
        return []
    if count <= _MANY_VALUES:
        return []
    words = (
        f"column {name!r} has {count} different values, each of which becomes a feature; to have "
        f"fewer write `columns: {{{name}: {{kind: categorical, encode: embed}}}}`, or hash"
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
        return column.astype("Float64")
    return column.astype(str).str.lower().map(_TRUTHS)


def _check_converted(column: pd.Series[Any], missing: pd.Series[Any], kind: str) -> None:
    wrong = missing & column.notna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        value = column.iloc[row]
        expected = {
            "numeric": "a number",
            "boolean": "true or false",
            "date": "a date such as 2026-11-22",
        }[kind]
        raise DataError(
            f"column {column.name!r} should be {kind}, but {int(wrong.sum())} of {len(column)} "
            f"values are not; the first is {value!r} in row {row}, counted from 0. Expected "
            f"{expected}."
        )
