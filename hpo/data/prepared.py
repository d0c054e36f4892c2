"""Prepared rows: in memory where they are few, else written once and mapped by every trainer."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from importlib.metadata import version

import numpy as np

from hpo.data.cache import cached_rows
from hpo.data.chunks import LARGE, chunks
from hpo.data.features import Array, Features, Shape, take
from hpo.data.preprocessing import FittedInputs, FittedPreprocessing, Preparation

# Says which data and which rows these are.
Key = tuple[str, ...]

# Raised when rows are prepared in another way: then none may come out of an old cache.
_PREPARING = 1


def prepared_rows(fitted: Preparation, x: Features, rows: Array, key: Key) -> Features:
    """The raw rows of these numbers as the model sees them."""
    key = (*key, "x")
    if not _is_large(fitted.input_shape, x, len(rows)):
        return fitted.apply(take(x, rows))
    if isinstance(fitted, FittedInputs):
        assert isinstance(x, dict)
        return {
            name: _by_chunks(each, x[name], rows, (*key, name))
            for name, each in fitted.inputs.items()
        }
    if isinstance(fitted, FittedPreprocessing):
        assert not isinstance(x, dict)
        return _by_chunks(fitted, x, rows, key)
    return _shared(lambda: fitted.apply(take(x, rows)), fitted.input_shape, key)


def taken_targets(y: Array, rows: Array, key: Key) -> Array:
    """The targets of the rows of these numbers."""
    if len(rows) * y.nbytes // max(1, len(y)) <= LARGE:
        return y[rows]
    return cached_rows(_name((*key, "y")), lambda: (chunk for _, chunk in chunks(y, rows)))


def _by_chunks(fitted: FittedPreprocessing, x: Array, rows: Array, key: Key) -> Array:
    return cached_rows(
        _name(key, fitted), lambda: (fitted.apply(chunk) for _, chunk in chunks(x, rows))
    )


def _shared(whole: Callable[[], Features], shape: Shape | dict[str, Shape], key: Key) -> Features:
    """For a table, which was read as a whole: shared, but not made by chunks."""
    made = functools.cache(whole)

    def output(name: str | None) -> Array:
        def make() -> Iterable[Array]:
            features = made()
            array = features if name is None or not isinstance(features, dict) else features[name]
            assert not isinstance(array, dict)
            return (chunk for _, chunk in chunks(array))

        return cached_rows(_name(key if name is None else (*key, name)), make)

    return {name: output(name) for name in shape} if isinstance(shape, dict) else output(None)


def _is_large(shape: Shape | dict[str, Shape], x: Features, rows: int) -> bool:
    shapes = list(shape.values()) if isinstance(shape, dict) else [shape]
    if not isinstance(x, dict):
        # An axis of any length has the one that all sequences are padded to.
        shapes = [x.shape[1:] if None in each else each for each in shapes]
    numbers = sum(math.prod(size or 0 for size in each) for each in shapes)
    return rows * numbers * np.dtype(np.float32).itemsize > LARGE


def _name(key: Key, fitted: FittedPreprocessing | None = None) -> str:
    # What was fitted to a table follows from its data and the libraries.
    facts = [_PREPARING, version("numpy"), version("keras"), key, str(fitted)]
    return f"prepared-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}"
