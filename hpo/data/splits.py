"""One seeded split of the rows into train, validation and test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.data.features import Array
from hpo.errors import DataError
from hpo.spec.models import Split

Rows = NDArray[np.int64]

# One row each for train, validation and test.
_MIN_CLASS_ROWS = 3
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class SplitRows:
    """Row numbers of the three parts: disjoint, in shuffled order, together all rows."""

    train: Rows
    validation: Rows
    test: Rows

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.train), len(self.validation), len(self.test)

    def parts(self) -> Iterable[tuple[str, Rows]]:
        return zip(_PARTS, (self.train, self.validation, self.test), strict=True)


def split_rows(
    rows: int,
    split: Split,
    labels: Rows | None = None,
    class_names: tuple[str, ...] = (),
    columns: Mapping[str, Array] | None = None,
    parts: Array | None = None,
) -> SplitRows:
    """Splits `rows` rows as the study file says; validation and test get at least one each.

    `labels` (0..K-1) keep their shares in every part when the split is stratified; None for
    regression. `columns` has those that the split names; `parts` says where rows belong that come
    from sources of their own. The result depends on nothing but the arguments.

    Raises DataError when no row is left to train on or the shares can't be kept.
    """
    strata = labels if split.stratify else None
    known = columns or {}
    if split.group is not None:
        _check_groups(known[split.group])
    if split.column is not None:
        return _given(_named_parts(known[split.column], split.column))
    if parts is not None:
        return _partly_given(parts, split, strata, class_names, known)
    if split.group is not None:
        return _by_group(known[split.group], split)
    if split.time is not None:
        return _by_time(known[split.time], split)
    return _at_random(np.arange(rows, dtype=np.int64), split, strata, class_names)


def _at_random(
    rows: Rows, split: Split, labels: Rows | None, class_names: tuple[str, ...]
) -> SplitRows:
    fractions = (_fraction(split.validation), _fraction(split.test))
    validation, test = (max(1, round(fraction * len(rows))) for fraction in fractions)
    if validation + test >= len(rows):
        raise DataError(
            f"{len(rows)} rows can't be split: validation takes {validation} and test {test}, "
            "which leaves none to train on. Lower `split.validation` or `split.test`, or add rows."
        )
    if labels is not None:
        _check_strata(labels, (len(rows) - validation - test, validation, test), class_names)
    rest, test_rows = _cut(rows, test, labels, split.seed)
    train, validation_rows = _cut(rest, validation, labels, split.seed)
    return SplitRows(train, validation_rows, test_rows)


def _fraction(part: float | str) -> float:
    assert not isinstance(part, str)
    return part


def _named_parts(column: Array, name: str) -> Array:
    known = {"train": "train", "validation": "validation", "valid": "validation"}
    known |= {"val": "validation", "test": "test"}
    parts = np.array([known.get(str(value).lower(), "") for value in column])
    if (parts == "").any():
        row = int((parts == "").argmax())
        raise DataError(
            f"the column {name!r} must say train, validation or test; received "
            f"{str(column[row])!r} in row {row}, counted from 0"
        )
    return parts


def _given(parts: Array) -> SplitRows:
    rows = [np.flatnonzero(parts == part).astype(np.int64) for part in _PARTS]
    for part, found in zip(_PARTS, rows, strict=True):
        if not len(found):
            raise DataError(f"no row is in {part}; expected rows in train, validation and test")
    return SplitRows(*rows)


def _partly_given(
    parts: Array,
    split: Split,
    labels: Rows | None,
    class_names: tuple[str, ...],
    columns: Mapping[str, Array],
) -> SplitRows:
    """Sources of their own give their rows; what they leave open is cut off the first source."""
    # NumPy cuts a text off that is longer than those an array was made of.
    parts = parts.astype(f"U{max(map(len, _PARTS))}")
    rest = np.flatnonzero(parts == "").astype(np.int64)
    for part, wanted in zip(("test", "validation"), (split.test, split.validation), strict=True):
        if isinstance(wanted, str) or (parts == part).any():
            continue
        count = max(1, round(wanted * len(rest)))
        if count >= len(rest):
            raise DataError(f"{len(rest)} rows are too few to cut {count} of them off for {part}")
        if split.group is not None:
            rest, cut = _cut_groups(rest, count, columns[split.group], split.seed)
        elif split.time is not None:
            rest, cut = _cut_latest(rest, count, _comparable(columns[split.time]))
        else:
            if labels is not None:
                _check_strata(labels[rest], (len(rest) - count, count), class_names)
            rest, cut = _cut(rest, count, labels, split.seed)
        parts[cut] = part
    parts[parts == ""] = "train"
    return _given(parts)


def _by_group(groups: Array, split: Split) -> SplitRows:
    """Whole groups in random order; each part gets one group and then its fraction of the rows."""
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < len(_PARTS):
        raise DataError(
            f"`split.group` has {len(sizes)} group{'s' * (len(sizes) > 1)}; expected at least one "
            "for each of train, validation and test"
        )
    order = list(np.random.default_rng(split.seed).permutation(len(sizes)))
    part_of = np.zeros(len(sizes), np.int64)
    for part, fraction in ((2, _fraction(split.test)), (1, _fraction(split.validation))):
        wanted = fraction * len(groups)
        filled = 0
        while len(order) > part and (not filled or filled + sizes[order[-1]] / 2 < wanted):
            group = order.pop()
            part_of[group] = part
            filled += int(sizes[group])
    return _by_number(part_of[codes])


def _check_groups(groups: Array) -> None:
    """Raises DataError when a row has no group: all of those would be one."""
    # Texts that are missing are empty; NaN and NaT are not equal to themselves, and None is None.
    missing = np.asarray((groups == "") if groups.dtype.kind in "US" else groups != groups)
    if groups.dtype.kind == "O":
        missing |= np.array([each is None or each == "" for each in groups])
    if missing.any():
        raise DataError(
            f"`split.group` is missing in {int(missing.sum())} of {len(groups)} rows, the first is "
            f"row {int(missing.argmax())}, counted from 0; give each of them a group"
        )


def _by_time(times: Array, split: Split) -> SplitRows:
    """Train first, then validation, test last; rows of one moment stay together."""
    cuts = _cuts(_comparable(times), split, "`split.time`")
    return _by_number(np.searchsorted(cuts, times, side="right"))


def _comparable(times: Array) -> Array:
    if times.dtype.kind not in "iufM":
        raise DataError(
            f"`split.time` holds texts such as {str(times[0])!r}; expected numbers, or dates such "
            "as 2026-11-22"
        )
    missing = np.isnat(times) if times.dtype.kind == "M" else np.isnan(times)
    if missing.any():
        raise DataError(f"`split.time` is missing in row {int(missing.argmax())}, counted from 0")
    return times


def _cut_groups(rows: Rows, count: int, groups: Array, seed: int) -> tuple[Rows, Rows]:
    """Whole groups in random order, as many as come nearest to `count` rows."""
    _, codes, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    chosen = order[: _nearest(sizes[order], count, "`split.group`")]
    taken = np.isin(codes, chosen)
    return rows[~taken], rows[taken]


def _cut_latest(rows: Rows, count: int, times: Array) -> tuple[Rows, Rows]:
    """The latest moments, as many as come nearest to `count` rows."""
    moments, codes, sizes = np.unique(times[rows], return_inverse=True, return_counts=True)
    kept = len(moments) - _nearest(sizes[::-1], count, "`split.time`")
    return rows[codes < kept], rows[codes >= kept]


def _nearest(sizes: Array, count: int, name: str) -> int:
    """How many of the first sizes have about `count` rows: at least one, and not all."""
    if len(sizes) == 1:
        raise DataError(
            f"{name} has a single value in the rows that are to be split; expected at least one "
            "for each part"
        )
    return int(np.abs(np.cumsum(sizes)[:-1] - count).argmin()) + 1


def parts_in_time(begins: Array, ends: Array, split: Split) -> Array:
    """The part of each span of time, from its beginning to its end, both included.

    Train ends before the first span of validation begins, and validation before test; "" is for
    spans that lie across such a border and belong to no part.

    Raises DataError when the fractions leave a part empty.
    """
    cuts = _cuts(begins, split, "the time of what is to be forecast")
    first, last = (np.searchsorted(cuts, times, side="right") for times in (begins, ends))
    parts = np.where(first == last, np.asarray(_PARTS)[first], "")
    for part in _PARTS:
        if not (parts == part).any():
            raise DataError(
                f"all that could be forecast in {part} reaches beyond it; give it a larger "
                "fraction, or shorten the horizon"
            )
    return parts


def _cuts(times: Array, split: Split, name: str) -> Array:
    """Where validation and where test begins."""
    moments, codes = np.unique(times, return_inverse=True)
    before = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    test_begins = len(times) * (1 - _fraction(split.test))
    ends = (test_begins - len(times) * _fraction(split.validation), test_begins)
    first, second = (int(np.abs(before - end).argmin()) for end in ends)
    if not 0 < first < second < len(moments):
        raise DataError(
            f"{name} has {len(moments)} different values, which can't be cut into train, "
            "validation and test with these fractions"
        )
    return moments[[first, second]]


def _by_number(part_of_rows: Array) -> SplitRows:
    """0 trains, 1 validates, 2 tests."""
    return SplitRows(*(np.flatnonzero(part_of_rows == part) for part in range(len(_PARTS))))


def _cut(rows: Rows, count: int, labels: Rows | None, seed: int) -> tuple[Rows, Rows]:
    from sklearn.model_selection import train_test_split

    strata = None if labels is None else labels[rows]
    try:
        # scikit-learn's seeds have 32 bits; ours have no limit.
        kept, cut = train_test_split(
            rows, test_size=count, stratify=strata, random_state=seed % 2**32
        )
    except ValueError as error:
        raise DataError(
            f"the rows can't be split with the class shares kept (scikit-learn: {error}). "
            "Set `split.stratify: false`, choose other fractions, or add rows."
        ) from error
    return kept, cut


def _check_strata(labels: Rows, parts: tuple[int, ...], names: tuple[str, ...]) -> None:
    # Classes that only a source of its own has are not there.
    classes, counts = np.unique(labels, return_counts=True)
    rarest = int(counts.argmin())
    name = names[classes[rarest]] if names else str(classes[rarest])
    if counts[rarest] < _MIN_CLASS_ROWS:
        raise DataError(
            f"class {name!r} has {counts[rarest]} rows; a stratified split needs at least "
            f"{_MIN_CLASS_ROWS} of each class. Add rows, merge or drop the class, or set "
            "`split.stratify: false`. If y holds quantities, not classes, set `task: regression`."
        )
    if min(parts) < len(counts):
        raise DataError(
            f"a stratified split needs a row of each of the {len(counts)} classes in every part, "
            f"but they get {', '.join(map(str, parts))} rows. Choose larger "
            "fractions, add rows, or set `split.stratify: false`."
        )
