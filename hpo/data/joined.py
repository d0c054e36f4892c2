"""Chunks of rows that come one after the other, as one array."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from hpo.data.cache import cache_folder, open_mapped, remove_unused
from hpo.data.chunks import LARGE, bytes_of, chunks
from hpo.data.features import Array, Features
from hpo.data.rowsfile import RowsFile
from hpo.errors import DataError


def joined(arrays: Iterable[Array]) -> Array:
    """One array of all rows. Raises ValueError when they don't fit together."""
    rows = JoinedRows()
    for chunk in arrays:
        rows.add(chunk)
    return rows.join()


def join_rows(parts: Sequence[Features]) -> Features:
    """The rows of several sources, one after the other.

    Raises DataError when they have other inputs, shapes or kinds of values.
    """
    by_name = [part if isinstance(part, dict) else {"x": part} for part in parts]
    for other in by_name[1:]:
        if set(other) != set(by_name[0]):
            raise DataError(
                f"one source has the inputs {', '.join(sorted(by_name[0]))} and another one "
                f"{', '.join(sorted(other))}; expected the same in all"
            )
    x = {name: join_arrays([part[name] for part in by_name], name) for name in by_name[0]}
    return x if isinstance(parts[0], dict) else x["x"]


def join_arrays(arrays: Sequence[Array], name: str) -> Array:
    """The rows of one array of several sources, one after the other.

    Raises DataError when they have other shapes or kinds of values.
    """
    first = arrays[0]
    if len(arrays) == 1:
        return first
    for other in arrays:
        if not other.ndim or other.shape[1:] != first.shape[1:]:
            raise DataError(
                f"{name} has the shape {first.shape} in one source and {other.shape} in another "
                "one; expected rows of one shape in all"
            )
    # Rows of several types become those of a type for all, which takes all of them at once.
    if len({array.dtype for array in arrays}) == 1:
        return joined(chunk for array in arrays for _, chunk in chunks(array))
    try:
        return np.concatenate(arrays)
    except TypeError as error:
        raise DataError(f"{name} differs from source to source: {error}") from None


class JoinedRows:
    """In memory until they are large, then in a file of the cache that is named by its content.

    So processes that join the same rows share them. Where the file can't be written, rows stay in
    memory.
    """

    def __init__(self) -> None:
        self._chunks: list[Array] = []
        self._bytes = 0
        self._file: _File | None = None
        self._in_memory = False

    def add(self, chunk: Array) -> None:
        """Raises ValueError when large rows change their type or shape."""
        self._chunks.append(chunk)
        self._bytes += chunk.nbytes
        # Texts may become longer, and then another type; targets and columns of a split hold them.
        if self._bytes <= LARGE or self._in_memory or chunk.dtype.kind not in "biuf":
            return
        try:
            self._file = self._file or _File()
            while self._chunks:
                self._file.add(self._chunks[0])
                self._chunks.pop(0)
        except OSError:
            self._leave_file()

    def join(self) -> Array:
        """All rows. Raises ValueError when they don't fit together."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                return self._file.keep()
            self._leave_file()
        return np.concatenate(self._chunks)

    def _leave_file(self) -> None:
        self._in_memory = True
        if self._file is not None:
            self._chunks = [*self._file.written(), *self._chunks]
            self._file = None


class JoinedBatches:
    """Batches (x, y) as arrays x and y; of a data set without batches, its samples."""

    def __init__(self) -> None:
        self._xs: dict[str, JoinedRows] = {}
        self._named = False
        self._ys = JoinedRows()

    def __bool__(self) -> bool:
        return bool(self._xs)

    def add(self, x: Features, y: Array) -> None:
        """Raises DataError when the batch does not fit those before it."""
        self._named = isinstance(x, dict)
        by_name = x if isinstance(x, dict) else {"": x}
        self._xs = self._xs or {name: JoinedRows() for name in by_name}
        if set(by_name) != set(self._xs):
            raise DataError("the batches don't fit together: their inputs have other names")
        with _fitting():
            for name, array in by_name.items():
                self._xs[name].add(array[None] if y.ndim == 0 else array)
            self._ys.add(np.atleast_1d(y))

    def join(self) -> tuple[Features, Array]:
        """Raises DataError when the batches don't fit together."""
        with _fitting():
            y = self._ys.join()
            xs = {name: rows.join() for name, rows in self._xs.items()}
            return xs if self._named else xs[""], y


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise DataError(f"the batches don't fit together: {error}") from error


class _File:
    """Raises OSError when there is no folder for it or the disk is full."""

    def __init__(self) -> None:
        folder = cache_folder()
        if folder is None:
            raise FileNotFoundError("no cache folder")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".npy", ".rows-", folder)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._path = Path(name)
        self._rows = RowsFile(self._file)
        self._digest = hashlib.sha256()
        # Also when what yields the rows fails.
        weakref.finalize(self, _discard, self._file, self._path)

    def add(self, chunk: Array) -> None:
        self._rows.add(chunk)
        self._digest.update(bytes_of(chunk))

    def keep(self) -> Array:
        """Makes it an entry, unless another process has joined the same rows before."""
        self._rows.finish()
        os.fsync(self._file.fileno())
        self._digest.update(self._rows.header)
        final = self._path.with_name(f"rows-{self._digest.hexdigest()[:32]}.npy")
        array = open_mapped(final)
        if array is None:
            self._path.replace(final)
            array = open_mapped(final)
        remove_unused(final.parent)
        if array is None:
            raise FileNotFoundError(final)
        return array

    def written(self) -> list[Array]:
        """What is in the file, mapped; it needs no name for that."""
        return self._rows.written()


def _discard(file: IO[bytes], path: Path) -> None:
    file.close()
    # Its folder may be gone.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
