"""Where the arrays come from: scikit-learn's bundled sets and .npz files.

A source hands over the arrays as they are; `hpo.data.checks` judges them.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from hpo.errors import DataError
from hpo.spec.models import NpzSource, SklearnSource

_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class RawData:
    """Features and targets as the source has them, one row a sample.

    `class_names` are in the sorted order of the labels; None when the source has no names.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    class_names: tuple[str, ...] | None = None


def load_source(source: SklearnSource | NpzSource, project: Path) -> RawData:
    """Reads the arrays of a source; paths are relative to `project`.

    Raises DataError when the file or one of its arrays can't be read.
    """
    if isinstance(source, SklearnSource):
        return _load_sklearn(source.name)
    return _load_npz(source, project / source.path)


def _load_sklearn(name: str) -> RawData:
    from sklearn import datasets

    # Scaled, the diabetes set is normalized over all of its rows: the test rows would leak into
    # train, and the rounding of that sum would give machines different fingerprints.
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    names = None
    if bunch.target.dtype.kind in "iu":  # linnerud's target_names are names of columns
        names = tuple(str(each) for each in bunch.target_names)
    return RawData(bunch.data, bunch.target, names)


def _load_npz(source: NpzSource, path: Path) -> RawData:
    # np.load leaves a file open that it can't read, unless someone else opened it.
    with _open_file(path) as stream, _open_npz(stream, path) as file:
        return RawData(_read_array(file, source.x, path), _read_array(file, source.y, path))


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(
            f"data file not found: {path.absolute()}. `data.source.path` is relative to the "
            "project folder; correct it, or name the folder with --project."
        ) from None
    except OSError as error:
        raise _not_npz(path, error.strerror or str(error)) from error


def _open_npz(stream: BinaryIO, path: Path) -> NpzFile:
    try:
        file = np.load(stream, allow_pickle=False)
    except _UNREADABLE as error:
        raise _not_npz(path, str(error)) from error
    if not isinstance(file, NpzFile):
        raise _not_npz(path, "it holds a single array, such as a .npy file does")
    return file


def _read_array(file: NpzFile, name: str, path: Path) -> NDArray[Any]:
    if name not in file.files:
        raise DataError(_missing_array(name, file.files, path))
    try:
        array = file[name]
    except _UNREADABLE as error:
        if "Object arrays" in str(error):
            raise DataError(_pickled_array(name, path)) from None
        raise _not_npz(path, f"array {name!r} can't be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise _not_npz(path, f"entry {name!r} is no array")
    return array


def _not_npz(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is not a readable .npz file: {reason}. Write it again with "
        f'numpy.savez("{path.name}", x=..., y=...).'
    )


def _missing_array(name: str, names: list[str], path: Path) -> str:
    nearest = get_close_matches(name, names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    held = ", ".join(sorted(names)) or "no array at all"
    return (
        f"{path} has no array named {name!r}; it has: {held}.{hint} "
        "Set `data.source.x` and `data.source.y` to the names in the file."
    )


def _pickled_array(name: str, path: Path) -> str:
    return (
        f"array {name!r} of {path} holds Python objects (dtype object), which would have to be "
        "unpickled and could run code; expected numbers, or strings for labels. Convert it first, "
        f"for example with {name}.astype('float32') or {name}.astype(str), and save the file again."
    )
