"""Raw rows of a file, in the form that an exported model takes them."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.data.features import Array, Features
from hpo.data.padding import padded
from hpo.data.sources.arrays import reason_of_numpy
from hpo.errors import DataError, UsageError
from hpo.spec.models import Column

if TYPE_CHECKING:
    import pandas as pd

    from hpo.data.series import LongTable


def read_rows(file: Path, form: Mapping[str, Any], array: str) -> Features:
    """Reads a file of rows; `form` is the one of the data that the model was trained on.

    For pictures, `file` is one of them, a folder of them or a table of their names; arrays of
    pixels are taken too.

    Args:
        array: Name of the array in a .npz file, for a model with one input.

    Raises:
        UsageError: There is no such file.
        DataError: It can't be read, or is not of the form.
    """
    names = row_names(file, form)
    if names is not None:
        return _read_pictures(file if file.is_dir() else file.parent, names, form)
    if form["type"] == "table":
        return _read_table(file, form)
    try:
        if file.suffix.lower() == ".csv":
            return _read_csv(file)
        # np.load leaves a file open that it can't read, unless someone else opened it.
        with file.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else _pick(content, array, form, file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = reason_of_numpy(error)
        raise DataError(
            f"{file} can't be read as .npz, .npy or .csv of numbers: {reason}"
        ) from None


def row_names(file: Path, form: Mapping[str, Any]) -> list[str] | None:
    """The file of each row, in the order of `read_rows`; None for rows that are not files.

    Raises UsageError or DataError as `read_rows` does.
    """
    pictures = form["type"] == "images"
    if not (file.is_file() or (pictures and file.is_dir())):
        raise UsageError(f"there is no file {file} to predict from")
    if not pictures or file.suffix.lower() in (".npy", ".npz"):
        return None
    from hpo.data.pictures import find_pictures, is_picture

    if file.is_dir():
        names = find_pictures(file)
        if not names:
            raise DataError(f"{file} holds no picture")
        return names
    return [file.name] if is_picture(file.name) else _names_in_table(file, form)


def _names_in_table(file: Path, form: Mapping[str, Any]) -> list[str]:
    """The only column of a table, or the one that is named as in the data of the search."""
    from hpo.data.pictures import is_picture
    from hpo.data.sources.images import files_in_table
    from hpo.data.tablefile import check_column, read_frame

    frame = read_frame(file)
    if len(frame.columns) == 1 and is_picture(frame.columns[0]):
        raise DataError(
            f"{file} begins with the file {frame.columns[0]!r}; expected a line with the name of "
            "the column first"
        )
    name = frame.columns[0] if len(frame.columns) == 1 else form.get("image", "image")
    check_column(frame, name, file)
    # A name of digits is no number.
    return files_in_table(read_frame(file, [name])[name], file.parent, file)


def _read_pictures(folder: Path, names: list[str], form: Mapping[str, Any]) -> Array:
    from hpo.data.pictures import read_pictures

    height, width = form["size"]
    pictures, bad = read_pictures(folder, names, (height, width), form["color"])
    for place, reason in bad.items():
        raise DataError(f"{folder / names[place]} can't be read as a picture: {reason}")
    return pictures


def read_series(file: Path, form: Mapping[str, Any]) -> tuple[list[Any], Array]:
    """The ids of the series in a file in long form, and their steps, padded with NaN.

    Raises:
        UsageError: There is no such file.
        DataError: It can't be read, or is not of the form.
    """
    from hpo.data.series import check_gaps, order_series
    from hpo.data.tablefile import spelled_codes

    columns = tuple(form["values"])
    frame = _read_frame(file, (form["id"], form["time"], *columns))
    try:
        frame = frame.assign(**spelled_codes(file, frame, [form["id"]], [form["time"], *columns]))
        table = order_series(frame, form["id"], form["time"])
        numbers = table.numbers(columns)
        if not form.get("gaps"):
            check_gaps(table, numbers, columns, otherwise="")
        _check_steps(table, form)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    return table.names, padded(table.split(numbers), form["length"])


def _check_steps(table: LongTable, form: Mapping[str, Any]) -> None:
    """Raises DataError when a model that takes one length only can't take a series."""
    expected, kept = form["steps"], form["length"]
    if expected is None:
        return
    lengths = table.lengths if kept is None else np.minimum(table.lengths, kept)
    if (lengths != expected).any():
        series = int((lengths != expected).argmax())
        raise DataError(
            f"series {table.names[series]!r} has {table.lengths[series]} steps; the model takes "
            f"{'at least ' if kept else ''}{expected}"
        )


def _read_table(file: Path, form: Mapping[str, Any]) -> dict[str, Array]:
    from hpo.data.columns import column_array

    columns = form["columns"]
    # Bundles of before have none.
    frame = _read_frame(file, tuple(columns), form.get("texts", ()))
    try:
        return {
            name: column_array(frame[name], Column.model_validate(column))
            for name, column in columns.items()
        }
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _read_frame(file: Path, columns: tuple[str, ...], texts: Sequence[str] = ()) -> pd.DataFrame:
    from hpo.data.tablefile import read_frame

    if not file.is_file():
        raise UsageError(f"there is no file {file} to predict from")
    frame = read_frame(file, texts)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"{file} has no column {missing[0]!r}; the model takes: {', '.join(columns)}"
        )
    return frame


def _read_csv(file: Path) -> Array:
    with warnings.catch_warnings():
        # About an empty file, which the check of the rows tells of.
        warnings.simplefilter("ignore")
        return np.loadtxt(file, delimiter=",", ndmin=2)


def _pick(content: Any, array: str, form: Mapping[str, Any], file: Path) -> Features:
    names = form.get("inputs") or [array]
    for name in names:
        if name not in content:
            held = ", ".join(content.files)
            raise DataError(f"{file} holds no array {name!r}; it holds: {held} (see --array)")
    if "inputs" in form:
        return {name: np.asarray(content[name]) for name in names}
    return np.asarray(content[array])
