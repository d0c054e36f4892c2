"""A .npy file that is written a chunk of rows at a time."""

from __future__ import annotations

import io
from typing import IO

import numpy as np
from numpy.lib import format as npy

from hpo.data.chunks import bytes_of
from hpo.data.features import Array


class RowsFile:
    """Writes rows behind each other; the number of them need not be known before the end.

    Args:
        file: Empty, without a buffer.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._like: Array | None = None
        self._count = 0

    def add(self, chunk: Array) -> None:
        """Raises ValueError when the chunk has other rows than those before it."""
        if self._like is None:
            self._like = chunk[:0].copy()
            self._write(memoryview(self.header))
        if (chunk.dtype, chunk.shape[1:]) != (self._like.dtype, self._like.shape[1:]):
            raise ValueError(
                f"rows of {chunk.dtype} and shape {chunk.shape[1:]} come after rows of "
                f"{self._like.dtype} and shape {self._like.shape[1:]}"
            )
        self._write(bytes_of(chunk))
        self._count += len(chunk)

    def finish(self) -> None:
        """Says in the file how many rows it has."""
        self._file.seek(0)
        self._write(memoryview(self.header))

    def written(self) -> list[Array]:
        """The rows so far, mapped."""
        if self._like is None or not self._count:
            return []
        shape = (self._count, *self._like.shape[1:])
        return [np.memmap(self._file, self._like.dtype, "r", len(self.header), shape)]

    @property
    def header(self) -> bytes:
        """Says type and shape. NumPy leaves room in it for the number of rows to grow."""
        assert self._like is not None
        form = {"descr": npy.dtype_to_descr(self._like.dtype), "fortran_order": False}
        header = io.BytesIO()
        npy.write_array_header_1_0(header, form | {"shape": (self._count, *self._like.shape[1:])})
        return header.getvalue()

    def _write(self, rest: memoryview) -> None:
        # A file without a buffer may take less than it was given.
        while rest:
            rest = rest[self._file.write(rest) :]
