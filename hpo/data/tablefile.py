"""Files of tables: CSV and Parquet, read with pandas so that codes stay what they are."""

from __future__ import annotations

import mmap
import re
import warnings
from collections.abc import Container, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.columns import plain_frame
from hpo.data.kinds import zeros_before
from hpo.errors import DataError
from hpo.spec.models import DataSpec

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
# Its columns have types of their own.
_PARQUET = ".parquet"
_NUMBER = re.compile(r"[-+]?[\d.]+(?:e[-+]?\d+)?", re.IGNORECASE)
# Digits that begin with a zero, where a field begins.
_ZEROS = re.compile(rb'[,\t\n"] *0[0-9]')


def read_frame(path: Path, texts: Iterable[str] = ()) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a DataFrame.

    Args:
        texts: Columns of a CSV or TSV file whose values are texts, also where they look like
            numbers.

    Raises DataError when it can't be read.
    """
    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, _PARQUET):
        known = ", ".join((*_SEPARATORS, _PARQUET))
        raise DataError(f"{path}: expected a file that ends in one of {known}")
    try:
        if suffix == _PARQUET:
            frame = pd.read_parquet(path)
        else:
            frame = _read_csv(path, dict.fromkeys(texts, str))
    except FileNotFoundError:
        raise DataError(
            f"data file not found: {path.absolute()}. Paths in `data` are relative to the "
            "project folder; correct it, or name the folder with --project."
        ) from None
    except UnicodeError:
        raise DataError(f"{path} can't be read as text in UTF-8. Save it as UTF-8.") from None
    except (OSError, ValueError) as error:
        # pandas and pyarrow derive their errors from these two.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} can't be read as a table: {reason}") from error
    if not len(frame.columns):
        raise DataError(f"{path} has no columns; expected a table with names in its first line")
    if not len(frame):
        raise DataError(f"{path}: expected at least one row")
    if frame.columns.duplicated().any():
        raise DataError(_twice(path, frame.columns[frame.columns.duplicated()][0]))
    return plain_frame(frame)


def read_codes(
    path: Path,
    data: DataSpec,
    target: str | Sequence[str],
    names: Iterable[str] = (),
    numbers: Iterable[str] = (),
    texts: Iterable[str] = (),
) -> pd.DataFrame:
    """A table to learn from, in which a code such as 007 is no number 7.

    Args:
        names: Columns that hold names, which are different where their spelling is.
        numbers: Columns that hold numbers, whatever stands before them.
        texts: As for `read_frame`.

    Raises DataError when it can't be read.
    """
    split = data.split
    named = {*names, *filter(None, (split.column, split.group))}
    plain = {*numbers, *filter(None, (split.time,))}
    if not isinstance(target, str) or data.task == "regression":
        plain |= {target} if isinstance(target, str) else {*target}
    frame = read_frame(path, texts)
    return frame.assign(**spelled_codes(path, frame, named, plain))


def spelled_codes(
    path: Path, frame: pd.DataFrame, names: Container[str], numbers: Container[str] = ()
) -> dict[str, pd.Series[Any]]:
    """Columns of a CSV or TSV file that pandas has read as numbers, but that hold codes, as texts.

    They are codes where all values are whole and one begins with a zero. `names` are so where any
    does, or where two spellings would be one number; `numbers` never are.
    """
    asked = [name for name in frame if frame[name].dtype.kind in "iuf" and name not in numbers]
    if path.suffix.lower() not in _SEPARATORS or not asked:
        return {}
    whole = [name for name in asked if _is_whole(frame[name])]
    codes = whole if whole and _has_zeros(path) else []
    asked = [name for name in asked if name in names or name in codes]
    spelled = _spelled(path, frame, asked) if asked else frame
    return {
        str(name): spelled[name]
        for name in asked
        if zeros_before(spelled[name], some=name in names)
        or (name in names and _merges(spelled[name], frame[name]))
    }


def check_column(frame: pd.DataFrame, name: str, table: Path | str = "the table") -> None:
    """Raises DataError unless the table has the column."""
    if name not in frame.columns:
        near = get_close_matches(name, list(frame.columns), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"{table} has no column {name!r}; it has: {column_names(frame)}.{hint}"
            f"{_no_names(frame.columns)}"
        )


def text_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the columns that hold texts, and nothing that pandas has read as something else."""
    objects = (name for name in frame if frame[name].dtype.kind == "O")
    found = {name: pd.api.types.infer_dtype(frame[name].astype(object)) for name in objects}
    return [str(name) for name, content in found.items() if content == "string"]


def column_names(frame: pd.DataFrame) -> str:
    names = list(frame.columns)
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")


def _spelled(path: Path, frame: pd.DataFrame, columns: list[Any]) -> pd.DataFrame:
    """Columns of a file that was read before, as they stand there."""
    places = np.flatnonzero(frame.columns.isin(columns))
    separator = _SEPARATORS[path.suffix.lower()]
    with warnings.catch_warnings():
        # About lines that end with a separator.
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        found = pd.read_csv(path, sep=separator, dtype=str, index_col=False, usecols=places)
    return found.set_axis(frame.columns[places], axis=1)


def _has_zeros(path: Path) -> bool:
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return _ZEROS.search(text) is not None


def _is_whole(numbers: pd.Series[Any]) -> bool:
    return numbers.dtype.kind in "iu" or bool((numbers.dropna() % 1 == 0).all())


def _merges(spelled: pd.Series[Any], numbers: pd.Series[Any]) -> bool:
    """Whether spellings are told apart that numbers are not; 1.0 is a spelling of 1."""
    return spelled.str.strip().str.replace(r"\.0+$", "", regex=True).nunique() > numbers.nunique()


def _read_csv(path: Path, texts: Any) -> pd.DataFrame:
    separator = _SEPARATORS[path.suffix.lower()]
    # With what stands in the first line, of which pandas would make names that are all different.
    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
    _check_separator(path, separator, header)
    if header.duplicated().any():
        raise DataError(_twice(path, header[header.duplicated()].iloc[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # Otherwise lines that end with a separator would move all columns by one.
            return pd.read_csv(path, sep=separator, dtype=texts, index_col=False, low_memory=False)
        except pd.errors.ParserWarning:
            raise ValueError("lines have more values than the first one has names") from None


def _check_separator(path: Path, separator: str, header: pd.Series[Any]) -> None:
    """Raises DataError when the first line is cut by something else."""
    words = {";": "semicolons", "\t": "tabs", ",": "commas"}
    if len(header) != 1:
        return
    other = [each for each in words if each != separator and each in str(header.iloc[0])]
    if other:
        raise DataError(
            f"{path}: the first line has {words[other[0]]} between the names; a {path.suffix} file "
            f"has {words[separator]}. Save it with {words[separator]}, and numbers with a decimal "
            "point."
        )


def _twice(path: Path, name: str) -> str:
    return f"{path} has two columns named {name!r}; rename one of them.{_no_names([name])}"


def _no_names(first_line: Iterable[str]) -> str:
    """A word about a file that begins with values, where its first line looks like that."""
    found = [_NUMBER.fullmatch(name) is not None for name in first_line]
    if 2 * sum(found) < len(found):
        return ""
    return " If its first line holds values, put a line with the names of the columns before it."
