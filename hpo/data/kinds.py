"""What a column of a table holds, read off its values, where the study file does not say."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from hpo.errors import DataError
from hpo.spec.models import ColumnKind

# By its spelling in lower case.
TRUTHS = {"true": 1.0, "false": 0.0}

_WORDS_OF_TEXT = 4
# A column is taken for something that a few of its values are not.
_MOST = 0.9
_CURRENCY = "(?:[$\u20ac\u00a3\u00a5%]|USD|EUR|GBP|CHF)"
_AMOUNT = (
    rf"(?=.*\d)[-+]?\s*{_CURRENCY}?\s*[-+]?(?:\d{{1,3}}(?:[ ,.'\u00a0]\d{{3}})+|\d*)"
    rf"(?:[.,]\d+)?\s*{_CURRENCY}?"
)
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    r"(?:\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./])\d{1,2}\2\d{1,2}"
    rf"|\d{{1,2}}\.?[ -]{_MONTH}\.?[ -]\d{{2,4}}|{_MONTH}\.? \d{{1,2}},? \d{{4}})(?:[ T,].*)?"
)


def read_kind(
    name: str, column: pd.Series[Any], *, dropping: bool
) -> tuple[ColumnKind, str | None]:
    """The kind, `ignore` for what tells nothing; and a word, where a person should know why.

    Args:
        dropping: Whether rows with a value missing will be dropped.

    Raises DataError when a column holds time spans.
    """
    values = column.dropna()
    if not len(values):
        return "ignore", f"column {name!r} has no value in any row and is left out"
    if values.nunique() <= 1:
        return _read_single(name, column, values, dropping=dropping)
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


def zeros_before(texts: pd.Series[Any], *, some: bool = False) -> bool:
    """Whether texts are codes such as 007: a number would forget their zeros.

    All of them must be whole numbers; with `some` those with zeros need no others like them.
    """
    texts = texts.dropna().str.strip()
    if not texts.str.fullmatch(r"0\d+").any():
        return False
    return some or bool(texts.str.fullmatch(r"[+-]?\d+").all())


def _read_single(
    name: str, column: pd.Series[Any], values: pd.Series[Any], *, dropping: bool
) -> tuple[ColumnKind, str | None]:
    """A column with one value, which tells something where it is not always there."""
    if len(values) == len(column):
        return "ignore", f"column {name!r} is constant, so it tells nothing and is left out"
    value = f"column {name!r} has one value, {str(values.iloc[0])!r}, or none"
    if dropping:
        return "ignore", (
            f"{value}, and is left out: `missing: drop` would leave the rows that have it, in "
            "which it tells nothing"
        )
    if column.dtype.kind == "O" and str(values.iloc[0]).lower() not in TRUTHS:
        return "categorical", None
    return "categorical", f"{value}, and is taken as a category: it is there, or missing"


def _read_numbers(name: str, column: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    if column.dtype.kind in "iu" and column.is_unique and not column.hasnans:
        ordered = column.to_numpy()
        if int(ordered.max()) - int(ordered.min()) == len(ordered) - 1:
            return "ignore", _looks_like_id(name, "numeric")
    return "numeric", None


def _read_texts(name: str, values: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    if values.str.lower().isin(list(TRUTHS)).all():
        return "boolean", None
    # Before dates: 1007 and 20000101 would be some.
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all():
        return _read_digits(name, values)
    dates = pd.to_datetime(values, format="ISO8601", errors="coerce", utc=True)
    if dates.notna().all():
        return "date", None
    if numbers.notna().mean() >= _MOST:
        return "categorical", _among(name, "text", "numbers", values, numbers)
    kind, words = _read_words(name, values)
    taken = "an id, and left out," if kind == "ignore" else kind
    if dates.notna().mean() >= _MOST:
        return kind, _among(name, taken, "dates such as 2026-11-22", values, dates)
    return kind, _misspelled(name, taken, values) or words


def _read_digits(name: str, values: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    """Texts that are all numbers, or codes."""
    if not zeros_before(values):
        return "numeric", (
            f"column {name!r} holds numbers as texts and is taken as numbers; where they are codes "
            f"write `columns: {{{name}: categorical}}`"
        )
    if values.is_unique:
        return "ignore", _looks_like_id(name, "categorical")
    first = values[values.str.strip().str.startswith("0")].iloc[0]
    return "categorical", (
        f"column {name!r} holds digits with zeros before them, such as {first!r}, and is taken as "
        f"codes, which are categories; where they are numbers write `columns: {{{name}: numeric}}`"
    )


def _read_words(name: str, values: pd.Series[Any]) -> tuple[ColumnKind, str | None]:
    words = values.map(lambda value: len(value.split())).mean()
    if words >= _WORDS_OF_TEXT and values.nunique() > len(values) / 2:
        return "text", None
    if values.is_unique:
        return "ignore", _looks_like_id(name, "categorical")
    return "categorical", None


def _among(
    name: str, taken: str, expected: str, values: pd.Series[Any], read: pd.Series[Any]
) -> str:
    """A word about a few values that are not what the others are."""
    wrong = values[read.isna()]
    return (
        f"column {name!r} is taken as {taken} because {len(wrong)} of {len(values)} values are no "
        f"{expected}, the first is {wrong.iloc[0]!r} in row {wrong.index[0]}; correct them, or "
        "leave them empty"
    )


def _misspelled(name: str, taken: str, values: pd.Series[Any]) -> str | None:
    """A word about values that a person reads as dates or numbers."""
    patterns = (
        (_DATE, "dates", "as 2026-11-22 or 2026-11-22T08:30"),
        (_AMOUNT, "numbers", "with a decimal point and nothing else, as 1234.5"),
    )
    for pattern, what, how in patterns:
        if values.str.strip().str.fullmatch(pattern, flags=re.IGNORECASE).mean() >= _MOST:
            return (
                f"column {name!r} is taken as {taken} because {what} are not spelled as expected, "
                f"the first is {values.iloc[0]!r}; where they are {what} write them {how}"
            )
    return None


def _looks_like_id(name: str, kind: str) -> str:
    return (
        f"column {name!r} has another value in every row, as an id has, and is left out; "
        f"to keep it write `columns: {{{name}: {kind}}}`"
    )
