"""Rows a few at a time, so that what is done to data larger than memory takes little of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpo.data.features import Array

# Arrays up to so many bytes are held and worked on as a whole. Larger ones are mapped from files,
# and worked on in chunks of a quarter.
LARGE = 2**24

Chunk = tuple[slice, Array]


def chunks(array: Array, rows: Array | None = None) -> Iterator[Chunk]:
    """The array, or the rows of these numbers, in order: where a chunk stands, and the chunk.

    What is not large is one chunk. Rows count as at least float32, which they become.
    """
    count = len(array) if rows is None else len(rows)
    size = max(1, LARGE // 4 // max(1, row_bytes(array)))
    if count * row_bytes(array) <= LARGE:
        size = max(1, count)
    # No rows are one chunk too.
    for start in range(0, max(1, count), size):
        where = slice(start, min(start + size, count))
        yield where, array[where if rows is None else rows[where]]


def row_bytes(array: Array) -> int:
    """The bytes of one row, counted as at least float32."""
    numbers = array.size // max(1, len(array))
    return int(numbers * max(array.itemsize, np.dtype(np.float32).itemsize))


def evenly_spaced(array: Array, rows: Array | None = None) -> Array:
    """Numbers of rows that together are not large: all, or as many as go, evenly spaced."""
    chosen = np.arange(len(array)) if rows is None else rows
    step = -(-len(chosen) * row_bytes(array) // LARGE)
    return chosen[:: max(1, step)]


def bytes_of(array: Array) -> memoryview:
    """The values of an array, row after row."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
