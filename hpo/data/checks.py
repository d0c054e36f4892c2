"""What arrays must be before anything is computed with them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.chunks import chunks
from hpo.data.features import Features
from hpo.data.raw import RawData
from hpo.errors import DataError

MIN_ROWS = 10

NO_ROW_WEIGHTS = "Weights of rows are not supported; `training.class_weight` weighs classes."

# Below the 3.4e38 of float32, so that neither a difference nor a reciprocal can overflow.
LARGEST = 1e37

# What else can be done about a number that is missing, where a study file can be changed.
OR_SET_MISSING = ", or set `preprocess.missing`"

# What a source calls a sample; elsewhere it is a row.
_SAMPLES = {"sequences": "series"}

_KINDS = {
    "c": "complex numbers",
    "U": "strings",
    "S": "byte strings",
    "O": "Python objects",
    "M": "dates",
    "m": "time spans",
    "V": "records",
}


def check_rows(raw: RawData) -> None:
    """Raises DataError unless x and y have the same, sufficient number of samples."""
    for name, array in named_arrays(raw.x):
        if array.ndim < 1 or (array.ndim < 2 and raw.form["type"] != "table"):
            raise DataError(
                f"{name} has shape {array.shape}; expected one row a sample and at least one axis "
                "of features. Save a single feature as x[:, None]."
            )
        if raw.y.ndim == 0 or len(array) != len(raw.y):
            rows = len(raw.y) if raw.y.ndim else "no"
            raise DataError(
                f"{name} has {len(array)} rows and y has {rows}; expected one target for each "
                "sample. Save both from the same selection of rows."
            )
        if not array.size:
            raise DataError(
                f"{name} is empty, its shape is {array.shape}; expected rows with features."
            )
    for name, column in raw.columns.items():
        if column.ndim == 0 or column.shape[1:] not in ((), (1,)):
            raise DataError(
                f"{name!r}, which the split asks for, has shape {column.shape}; expected (rows,), "
                "one value for each sample"
            )
        if len(column) != len(raw.y):
            raise DataError(
                f"{name!r}, which the split asks for, has {len(column)} values and y has "
                f"{len(raw.y)}; expected one for each sample"
            )
    if len(raw.y) < MIN_ROWS:
        rows = "windows" if "horizon" in raw.form else _SAMPLES.get(raw.form["type"], "rows")
        raise DataError(
            f"the data has {len(raw.y)} {rows}; expected at least {MIN_ROWS} for train, validation "
            f"and test. Add {rows}."
        )


def words_of_dropped(whole: NDArray[np.bool_], what: str) -> list[str]:
    """A word about samples that `missing: drop` drops; `whole` says which it keeps.

    Raises DataError when it keeps none.
    """
    dropped = int((~whole).sum())
    if dropped and dropped == len(whole):
        raise DataError(f"all {what} have values missing, so that `missing: drop` leaves none")
    return [f"{dropped} of {len(whole)} {what} have values missing and are dropped"][: dropped > 0]


def named_arrays(x: Features) -> list[tuple[str, NDArray[Any]]]:
    """Each array with the name that a message calls it."""
    return sorted(x.items()) if isinstance(x, dict) else [("x", x)]


def check_used(names: Iterable[str], columns: Collection[str]) -> None:
    """Raises DataError for an array beside x and y that the split does not ask for."""
    unused = [name for name in names if name not in ("x", "y", *columns)]
    if unused:
        raise DataError(
            f"nothing uses the array {unused[0]!r}; expected x, y and the columns that `split` "
            f"names: {', '.join(columns) or 'none'}. {NO_ROW_WEIGHTS}"
        )


def check_batch(batch: object, origin: str) -> None:
    """Raises DataError unless it is (x, y); `origin` is what yields it."""
    if isinstance(batch, tuple | list):
        if len(batch) == 2:
            return
        advice = f". {NO_ROW_WEIGHTS}" if len(batch) == 3 else ""
        raise DataError(
            f"{origin} yields batches of {len(batch)} parts; expected batches (x, y){advice}"
        )
    raise DataError(f"{origin} yields {type(batch).__name__}; expected batches (x, y)")


def check_features(x: Features, *, gaps: bool = False, otherwise: str = OR_SET_MISSING) -> None:
    """Raises DataError unless `x` holds finite real numbers that a float32 can hold.

    With `gaps` numbers may be missing (NaN). `otherwise` says what else could be done.
    """
    for name, array in named_arrays(x):
        if array.dtype.kind not in "biuf":
            raise DataError(
                f"{name} holds {name_of_kind(array)}; expected real numbers. "
                "Encode them, or give a table (a DataFrame), whose columns of text are encoded."
            )
        check_finite(array, name, gaps=gaps, otherwise=otherwise)


def check_table(
    x: Mapping[str, NDArray[Any]], *, gaps: bool, otherwise: str = OR_SET_MISSING
) -> None:
    """Raises DataError unless the numbers of a table's columns are finite; without `gaps`, there.

    What a missing text or category is, its column says. `otherwise` says what else could be done.
    """
    for name, array in x.items():
        check_finite(array, f"column {name!r}", gaps=True)
        if gaps or array.dtype.kind != "f":
            continue
        missing = np.isnan(array)
        if missing.any():
            raise DataError(
                f"column {name!r} is missing in row {int(missing.argmax())}, counted from 0; fill "
                f"it in{otherwise}"
            )


def check_finite(
    array: NDArray[Any], name: str, *, gaps: bool = False, otherwise: str = OR_SET_MISSING
) -> None:
    """Raises DataError when a number is NaN, infinite or beyond float32; names the first.

    With `gaps` a number may be NaN. `otherwise` says what else could be done.
    """
    if array.dtype.kind != "f":
        return
    count, place = 0, tuple[int, ...]()
    for where, chunk in chunks(array):
        bad = _is_bad(chunk, gaps)
        if not count and bad.any():
            first, *rest = map(int, np.unravel_index(int(bad.argmax()), bad.shape))
            place = (where.start + first, *rest)
        count += int(bad.sum())
    if not count:
        return
    index = place[1:]
    feature = f", index {index[0] if len(index) == 1 else index}" if index else ""
    rule = f"{otherwise} where values are missing" if otherwise and name != "y" else ""
    raise DataError(
        f"{name} has {count} of {array.size} values that are NaN, infinite or beyond 1e37; the "
        f"first is {array[place]} at row {place[0]}{feature}, counted from 0. Expected finite "
        f"numbers: drop those rows or fill in the values{rule}."
    )


def _is_bad(chunk: NDArray[Any], gaps: bool) -> NDArray[np.bool_]:
    with np.errstate(over="ignore"):
        bad: NDArray[np.bool_] = ~(np.abs(chunk.astype(np.float32, copy=False)) <= LARGEST)
    return bad & ~np.isnan(chunk) if gaps else bad


def check_reshape(shape: tuple[int, ...], reshape: tuple[int, ...] | None) -> None:
    """Raises DataError unless a sample of `shape` can take the form `reshape`."""
    if reshape is None:
        return
    wanted, held = math.prod(reshape), math.prod(shape)
    if min(reshape) < 1 or wanted != held:
        raise DataError(
            f"`preprocess.reshape` {list(reshape)} does not fit: a sample has shape {shape}, which "
            f"is {held} values, and the new shape needs {wanted}. Use positive sizes whose product "
            f"is {held}."
        )


def name_of_kind(array: NDArray[Any]) -> str:
    """Says in words what an array holds, with its dtype."""
    return f"{_KINDS.get(array.dtype.kind, 'values')} (dtype {array.dtype})"
