"""Features: one array, or several by name where a model has several inputs or a table columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from numpy.typing import NDArray

Array = NDArray[Any]
Features = Array | dict[str, Array]
# None: an axis that may have any length, such as time.
Shape = tuple[int | None, ...]
T = TypeVar("T")


def each_array(x: Features) -> Iterable[Array]:
    """The arrays, in the order of their names."""
    return [x[name] for name in sorted(x)] if isinstance(x, dict) else [x]


def map_arrays(function: Callable[[Array], Array], x: Features) -> Features:
    """The same structure with the function's results in it."""
    if isinstance(x, dict):
        return {name: function(array) for name, array in x.items()}
    return function(x)


def take(x: Features, rows: Array | slice) -> Features:
    """The features of some rows."""
    return map_arrays(lambda array: array[rows], x)


def count_rows(x: Features) -> int:
    """The number of samples; the first array's, where they differ, and 0 where it is a number."""
    first = next(iter(each_array(x)))
    return len(first) if first.ndim else 0


def shapes_of(x: Features) -> Shape | dict[str, Shape]:
    """The shape of one sample, by name where there are names."""
    if isinstance(x, dict):
        return {name: array.shape[1:] for name, array in x.items()}
    return x.shape[1:]
