"""Sequences of different length in one array: (rows, steps, features), NaN after the last step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.data.checks import OR_SET_MISSING
from hpo.data.chunks import chunks
from hpo.data.features import Array, Features
from hpo.errors import DataError

Mask = NDArray[np.bool_]


def padded(series: Sequence[Array], length: int | None = None) -> NDArray[np.float32]:
    """Series of (steps, features) as one array; of those above `length` the last steps."""
    kept = [each if length is None else each[-length:] for each in series]
    longest = max(len(each) for each in kept)
    x = np.full((len(kept), longest, kept[0].shape[1]), np.nan, np.float32)
    for row, each in enumerate(kept):
        x[row, : len(each)] = each
    return x


def is_padding(x: Features) -> Mask:
    """Which steps (rows, steps) come after the last one that holds a number."""
    assert not isinstance(x, dict)
    if x.dtype.kind != "f":
        return np.zeros(x.shape[:2], np.bool_)
    numbers = (~np.isnan(x)).any(axis=-1)
    backwards: Mask = np.logical_or.accumulate(np.flip(numbers, axis=1), axis=1)
    return ~np.flip(backwards, axis=1)


def gaps(x: Array) -> Mask:
    """Which numbers (rows, steps, features) are missing before the end of their sequence."""
    return np.isnan(x) & ~is_padding(x)[..., None]


def check_sequences(x: Features, *, gaps_allowed: bool, otherwise: str = OR_SET_MISSING) -> None:
    """Raises DataError unless `x` is one array of sequences without an empty one.

    `otherwise` says what else could be done about a number that is missing.
    """
    if isinstance(x, dict) or x.ndim != 3:
        what = "several inputs" if isinstance(x, dict) else f"x has shape {x.shape}"
        raise DataError(f"`preprocess.mask` is for one array (rows, steps, features); {what}")
    for where, chunk in chunks(x):
        _check_chunk(chunk, where.start, gaps_allowed=gaps_allowed, otherwise=otherwise)


def has_padding(x: Features) -> bool:
    """Whether a sequence is shorter than others."""
    assert not isinstance(x, dict)
    return any(is_padding(chunk).any() for _, chunk in chunks(x))


def _check_chunk(x: Array, start: int, *, gaps_allowed: bool, otherwise: str) -> None:
    empty = is_padding(x).all(axis=1)
    if empty.any():
        row = start + int(empty.argmax())
        raise DataError(f"the sequence in row {row}, counted from 0, has no step")
    missing = gaps(x) if x.dtype.kind == "f" and not gaps_allowed else np.zeros((1, 1, 1))
    if missing.any():
        row, step, feature = (int(i) for i in np.argwhere(missing)[0])
        raise DataError(
            f"row {start + row} has a number missing at step {step}, feature {feature}, counted "
            f"from 0; only the steps after the last one are padding. Fill it in{otherwise}."
        )
