"""Numbers that lie too close to each other for float32, in which a model takes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hpo.data.features import Array

# Looked at in an array: the first rows, and so many numbers at most.
_ROWS, _NUMBERS = 1000, 2**22


def columns_told_apart_no_more(frame: pd.DataFrame, columns: Mapping[str, Array]) -> list[str]:
    """A word about each column of a table that lost values when it became float32."""
    counts = {name: (frame[name].nunique(), len(np.unique(columns[name]))) for name in columns}
    return [
        _words(f"column {name!r}", before, after)
        for name, (before, after) in counts.items()
        if 2 * after < before
    ]


def arrays_told_apart_no_more(arrays: Mapping[str, Array]) -> list[str]:
    """A word about each array (rows, ...) that will lose values in one of its columns."""
    found = []
    for name, array in arrays.items():
        width = array.size // max(1, len(array))
        if array.dtype.kind not in "iuf" or array.dtype.itemsize < 4 or array.dtype == np.float32:
            continue
        some = np.asarray(array[: min(_ROWS, _NUMBERS // max(1, width))]).reshape(-1, width)
        before, after = _different(some), _different(some.astype(np.float32))
        lost = 2 * after < before
        if lost.any():
            index = int(lost.argmax())
            column = name if width == 1 else f"column {index} of {name}"
            found.append(_words(column, int(before[index]), int(after[index])))
    return found


def _different(columns: Array) -> Array:
    """The number of different values in each column."""
    if not len(columns):
        return np.zeros(columns.shape[1], np.int64)
    ordered = np.sort(columns, axis=0)
    counts: Array = 1 + (ordered[1:] != ordered[:-1]).sum(axis=0)
    return counts


def _words(column: str, before: int, after: int) -> str:
    return (
        f"{column} has {before} different values, of which float32, in which a model takes them, "
        f"tells {after} apart: subtract what they have in common, such as the first of them, "
        "before they are saved"
    )
