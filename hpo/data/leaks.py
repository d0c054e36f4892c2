"""Signs that figures will be too good: rows on two sides of the split, columns with the answer."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.data.chunks import chunks
from hpo.data.features import Array, Features, count_rows, each_array
from hpo.data.splits import SplitRows

# With fewer rows the classes may happen to lie in ranges of their own.
_ROWS_IN_ORDER = 20


def rows_on_two_sides(x: Features, split: SplitRows, groups: Array | None) -> list[str]:
    """What stands on two sides of the split: equal rows, or rows of one group."""
    found = []
    keys = _row_keys(x)
    for part, rows in list(split.parts())[1:]:
        same = np.isin(keys[rows], keys[split.train])
        if same.any():
            found.append(
                f"{int(same.sum())} of {len(rows)} {part} rows have the same features as a row of "
                f"train, the first is row {int(rows[same.argmax()])}, counted from 0: figures on "
                f"{part} are too good by that; drop repeated rows, or split by group"
            )
        if groups is not None:
            both = np.intersect1d(groups[rows], groups[split.train])
            if len(both):
                found.append(
                    f"{len(both)} groups stand in train and {part}, the first is {str(both[0])!r}"
                )
    return found


def columns_with_the_answer(frame: pd.DataFrame, y: Array) -> list[str]:
    """Columns that seem to give the target away."""
    if y.ndim > 1:
        return []
    words = (
        "column {!r} tells the target {}: is it known before the target is? "
        "If not, leave it out with `exclude`"
    )
    return [
        words.format(name, how)
        for name in frame.columns
        if (how := _gives_away(frame[name], y)) is not None
    ]


def _row_keys(x: Features) -> Array:
    """A number for each row; equal for equal rows."""
    keys = np.zeros(count_rows(x), np.uint64)
    for array in each_array(x):
        keys *= np.uint64(0x9E3779B97F4A7C15)
        for where, chunk in chunks(array):
            keys[where] += _array_keys(np.ascontiguousarray(chunk).reshape(len(chunk), -1))
    return keys


def _array_keys(flat: Array) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in flat)
    return np.frombuffer(b"".join(digests), np.uint64)


def _gives_away(column: pd.Series[Any], y: Array) -> str | None:
    if y.dtype.kind == "f":
        if column.dtype.kind not in "iuf":
            return None
        x = column.to_numpy(dtype=np.float64, na_value=np.nan)
        both = np.isfinite(x) & np.isfinite(y)
        x = x[both]
        if len(x) < 2 or x.std() == 0 or y[both].std() == 0:
            return None
        correlation = float(np.corrcoef(x, y[both])[0, 1])
        return "almost exactly" if abs(correlation) > 0.9999 else None
    values = column.nunique()
    if values <= 1:
        return None
    if values > len(column) / 5:
        return "by ranges of its own for each class" if _is_ordered(column, y) else None
    classes = pd.Series(y).groupby(column.to_numpy()).nunique()
    return "without exception" if (classes <= 1).all() else None


def _is_ordered(column: pd.Series[Any], y: Array) -> bool:
    """Whether each class has a range of numbers of its own, as ids in the order of a file have."""
    if column.dtype.kind not in "iuf" or column.isna().any() or len(column) < _ROWS_IN_ORDER:
        return False
    ranges = column.groupby(y).agg(["min", "max"]).sort_values("min").to_numpy()
    return bool((ranges[:-1, 1] < ranges[1:, 0]).all())
