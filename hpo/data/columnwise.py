"""Figures of each column of large data, a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpo.data.chunks import chunks, evenly_spaced
from hpo.data.features import Array
from hpo.data.padding import is_padding

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Columns:
    """Features as chunks of float32 columns (n, width).

    Attributes:
        rows: The numbers of the rows that count; all when None.
        steps_only: Rows are sequences, and steps that are padding are left out.
        fill: What stands where a number is missing, for each column; empty leaves gaps.
    """

    x: Array
    rows: Array | None
    width: int
    steps_only: bool = False
    fill: tuple[float, ...] = ()

    def __iter__(self) -> Iterator[Floats]:
        for _, chunk in chunks(self.x, self.rows):
            kept = chunk[~is_padding(chunk)] if self.steps_only else chunk
            columns = kept.astype(np.float32).reshape(-1, self.width)
            if self.fill:
                columns = np.where(np.isnan(columns), np.asarray(self.fill, np.float32), columns)
            yield columns

    def sample(self) -> Floats:
        """As many rows as are not large, evenly spaced; all where they are few."""
        return np.concatenate(list(replace(self, rows=evenly_spaced(self.x, self.rows))))


def mean_of(columns: Columns) -> Doubles:
    """The mean of the numbers that are there; 0 where there are none."""
    total, count = np.zeros(columns.width), np.zeros(columns.width, np.int64)
    for each in columns:
        missing = np.isnan(each)
        total += np.where(missing, np.float32(0), each).sum(axis=0, dtype=np.float64)
        count += len(each) - missing.sum(axis=0)
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def std_of(columns: Columns, mean: Doubles) -> Doubles:
    """The standard deviation; every number must be there."""
    squares, count = np.zeros(columns.width), 0
    for each in columns:
        distances = each - mean
        squares += (distances * distances).sum(axis=0)
        count += len(each)
    deviation: Doubles = np.sqrt(squares / count)
    return deviation
