"""Tables: CSV and Parquet files, read with pandas; what each column holds is found here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.columns import (
    ColumnSpecs,
    check_values,
    column_array,
    column_specs,
    plain_frame,
)
from hpo.data.features import Array
from hpo.data.leaks import columns_with_the_answer
from hpo.data.raw import RawData, SourceFiles
from hpo.errors import DataError
from hpo.spec.models import Preprocess, TableSource

# By the end of the name; columns that are texts whatever they look like go with it.
_READERS: dict[str, Callable[[Path, Any], pd.DataFrame]] = {
    ".csv": lambda path, texts: _read_csv(path, texts, ","),
    ".tsv": lambda path, texts: _read_csv(path, texts, "\t"),
    # Its columns have types of their own.
    ".parquet": lambda path, _: pd.read_parquet(path),
}


def load_table(
    source: TableSource, files: SourceFiles, preprocess: Preprocess, project: Path
) -> RawData:
    """The rows of a table, and of tables of their own for validation and test.

    Raises DataError when a file can't be read or a column is not there.
    """
    paths = [project / path for _, path in files.files]
    frames = [read_frame(path) for path in paths]
    # What is a text in one file may look like numbers in another: the codes 01 and 02 beside A3.
    texts = {name for frame in frames for name in text_columns(frame)}
    if any(texts & {*frame.columns} - {*text_columns(frame)} for frame in frames):
        frames = [read_frame(path, texts) for path in paths]
    for frame, (_, path) in zip(frames, files.files, strict=True):
        _check_same_columns(frames[0], frame, files.files[0][1], path)
    frame = pd.concat(frames, ignore_index=True)
    parts = files.parts([len(each) for each in frames])
    return from_frame(frame, source, files.columns, preprocess, parts)


def text_columns(frame: pd.DataFrame) -> list[str]:
    """Names of the columns that hold texts, and nothing that pandas has read as something else."""
    objects = (name for name in frame if frame[name].dtype.kind == "O")
    found = {name: pd.api.types.infer_dtype(frame[name].astype(object)) for name in objects}
    return [str(name) for name, content in found.items() if content == "string"]


def read_frame(path: Path, texts: Iterable[str] = ()) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as a DataFrame.

    Args:
        texts: Columns of a CSV or TSV file whose values are texts, also where they look like
            numbers.

    Raises DataError when it can't be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise DataError(f"{path}: expected a file that ends in one of {known}")
    try:
        frame = reader(path, dict.fromkeys(texts, str))
    except FileNotFoundError:
        raise DataError(
            f"data file not found: {path.absolute()}. Paths in `data` are relative to the "
            "project folder; correct it, or name the folder with --project."
        ) from None
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


def _read_csv(path: Path, texts: Any, separator: str) -> pd.DataFrame:
    # With what stands in the first line, of which pandas would make names that are all different.
    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
    if header.duplicated().any():
        raise DataError(_twice(path, header[header.duplicated()].iloc[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # Otherwise lines that end with a separator would move all columns by one.
            return pd.read_csv(path, sep=separator, dtype=texts, index_col=False, low_memory=False)
        except pd.errors.ParserWarning:
            raise ValueError("lines have more values than the first one has names") from None


def _twice(path: Path, name: str) -> str:
    return f"{path} has two columns named {name!r}; rename one of them"


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
    features = list(chosen) if chosen else _all_but(frame, targets, excluded, split_columns)
    check_targets(frame, targets, features)
    specs, warnings = column_specs(frame[features], source.columns)
    if preprocess.missing == "drop":
        frame, parts = _without_missing(frame, list(specs), parts)
    if not specs:
        raise DataError(f"no column is left to learn from; the table has: {_names(frame)}")
    y = target_array(frame, targets)
    return RawData(
        x={name: column_array(frame[name], spec) for name, spec in specs.items()},
        y=y,
        class_names=tuple(targets) if len(targets) > 1 else None,
        form=_form(specs, frame),
        columns={name: column_values(frame[name]) for name in split_columns},
        parts=parts,
        warnings=(*warnings, *columns_with_the_answer(frame[list(specs)], y)),
    )


def check_column(frame: pd.DataFrame, name: str, table: Path | str = "the table") -> None:
    """Raises DataError unless the table has the column."""
    if name not in frame.columns:
        near = get_close_matches(name, list(frame.columns), 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{table} has no column {name!r}; it has: {_names(frame)}.{hint}")


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
                f"missing, the first in row {row}, counted from 0. Drop those rows or fill them in."
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

    Raises DataError when a value is none of these.
    """
    check_values(column)
    return _plain(_dates(column))


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
) -> tuple[pd.DataFrame, Array | None]:
    whole = frame[features].notna().all(axis=1).to_numpy()
    return frame[whole].reset_index(drop=True), None if parts is None else parts[whole]


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


def _names(frame: pd.DataFrame) -> str:
    names = list(frame.columns)
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
