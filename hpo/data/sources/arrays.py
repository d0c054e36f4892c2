"""Arrays: scikit-learn's bundled sets, .npz and .npy files."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile

from hpo.data.chunks import LARGE
from hpo.data.features import Array, Features, count_rows
from hpo.data.joined import join_arrays, join_rows
from hpo.data.raw import RawData, SourceFiles
from hpo.errors import DataError
from hpo.spec.models import NpySource, NpzSource

# Where the header of a file within a .zip file says how long its last two fields are.
_LENGTHS_AT, _LENGTHS = 26, struct.Struct("<HH")
_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


def load_sklearn(name: str) -> RawData:
    """One of scikit-learn's bundled sets."""
    from sklearn import datasets

    # Scaled, the diabetes set is normalized over all of its rows: the test rows would leak into
    # train, and the rounding of that sum would give machines different fingerprints.
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    names = None
    if bunch.target.dtype.kind in "iu":  # linnerud's target_names are names of columns
        names = tuple(str(each) for each in bunch.target_names)
    return RawData(bunch.data, bunch.target, names)


def load_npz(source: NpzSource, files: SourceFiles, project: Path) -> RawData:
    """Named arrays of a .npz file; more of them where the split names columns.

    Raises DataError when a file or one of its arrays can't be read.
    """
    found = [_load_npz(source, files.columns, project / path) for _, path in files.files]
    return RawData(
        x=join_rows([x for x, _, _ in found]),
        y=join_arrays([y for _, y, _ in found], source.y),
        columns={
            name: join_arrays([each[name] for *_, each in found], name) for name in files.columns
        },
        parts=files.parts([count_rows(x) for x, _, _ in found]),
    )


def load_npy(source: NpySource, project: Path) -> RawData:
    """Arrays of .npy files; several inputs where `x` names several.

    Raises DataError when a file can't be read.
    """
    x: Features
    if isinstance(source.x, dict):
        x = {name: _load_npy(project / path) for name, path in source.x.items()}
    else:
        x = _load_npy(project / source.x)
    return RawData(x, _load_npy(project / source.y))


def reason_of_numpy(error: Exception) -> str:
    """Why NumPy can't read a file, without its advice to unpickle what may run code."""
    text = str(error)
    # NumPy's words for arrays of objects, and for files of which it knows no beginning.
    if "Object arrays" in text:
        return "it holds Python objects, which would have to be unpickled and could run code"
    return "it is no such file, or a pickled object" if "pickle" in text else text


def _load_npy(path: Path) -> Array:
    with _open_file(path) as stream:
        try:
            # Mapping needs the file's name; what else there is opened by name is left open.
            large = path.stat().st_size > LARGE and stream.read(6) == npy.MAGIC_PREFIX
            stream.seek(0)
            array = np.load(path if large else stream, "r" if large else None, allow_pickle=False)
        except _UNREADABLE as error:
            raise _unreadable(path, "npy", reason_of_numpy(error)) from error
    if not isinstance(array, np.ndarray):
        raise _unreadable(path, "npy", "it holds several arrays; use a source of type npz")
    return np.asarray(array)


def _load_npz(
    source: NpzSource, columns: tuple[str, ...], path: Path
) -> tuple[Features, Array, dict[str, Array]]:
    # np.load leaves a file open that it can't read, unless someone else opened it.
    with _open_file(path) as stream, _open_npz(stream, path) as file:
        x: Features
        if isinstance(source.x, str):
            x = _read_array(file, source.x, path)
        else:
            x = {name: _read_array(file, name, path) for name in source.x}
        extra = {name: _read_array(file, name, path) for name in columns}
        return x, _read_array(file, source.y, path), extra


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(
            f"data file not found: {path.absolute()}. Paths in `data` are relative to the "
            "project folder; correct it, or name the folder with --project."
        ) from None
    except OSError as error:
        raise _unreadable(path, path.suffix[1:], error.strerror or str(error)) from error


def _open_npz(stream: BinaryIO, path: Path) -> NpzFile:
    try:
        file = np.load(stream, allow_pickle=False)
    except _UNREADABLE as error:
        raise _unreadable(path, "npz", reason_of_numpy(error)) from error
    if not isinstance(file, NpzFile):
        raise _unreadable(path, "npz", "it holds a single array, such as a .npy file does")
    return file


def _read_array(file: NpzFile, name: str, path: Path) -> Array:
    if name not in file.files:
        raise DataError(_missing_array(name, file.files, path))
    try:
        array = _map_array(file, name, path)
        if array is None:
            array = file[name]
    except _UNREADABLE as error:
        if "Object arrays" in str(error):
            raise DataError(_pickled_array(name, path)) from None
        raise _unreadable(path, "npz", f"array {name!r} can't be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise _unreadable(path, "npz", f"entry {name!r} is no array")
    return array


def _map_array(file: NpzFile, name: str, path: Path) -> Array | None:
    """A large array that lies in the file as it is, where `np.savez` wrote it; None for others."""
    assert file.zip is not None
    member = file.zip.NameToInfo.get(f"{name}.npy")
    if member is None or member.compress_type != zipfile.ZIP_STORED or member.file_size <= LARGE:
        return None
    with file.zip.open(member) as content:
        # Raises BadZipFile at the end, unless the checksum is right.
        while content.read(LARGE // 4):
            pass
    with path.open("rb") as stream:
        stream.seek(member.header_offset + _LENGTHS_AT)
        stream.seek(sum(_LENGTHS.unpack(stream.read(_LENGTHS.size))), os.SEEK_CUR)
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, in_columns, dtype = read(stream)
        if dtype.hasobject:
            return None
        order: Literal["F", "C"] = "F" if in_columns else "C"
        return np.asarray(np.memmap(path, dtype, "r", stream.tell(), shape, order))


def _unreadable(path: Path, kind: str, reason: str) -> DataError:
    again = "savez(..., x=..., y=...)" if kind == "npz" else "save(..., x)"
    return DataError(
        f"{path} is not a readable .{kind} file: {reason}. Write it again with numpy.{again}."
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
