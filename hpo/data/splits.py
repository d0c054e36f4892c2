"""One seeded split of the rows into train, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError
from hpo.spec.models import Split

Rows = NDArray[np.int64]

# One row each for train, validation and test.
_MIN_CLASS_ROWS = 3


@dataclass(frozen=True, eq=False)
class SplitRows:
    """Row numbers of the three parts: disjoint, in shuffled order, together all rows."""

    train: Rows
    validation: Rows
    test: Rows

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.train), len(self.validation), len(self.test)


def split_rows(
    rows: int, split: Split, labels: Rows | None = None, class_names: tuple[str, ...] = ()
) -> SplitRows:
    """Splits `rows` rows; validation and test get round(fraction * rows), each at least 1.

    `labels` (0..K-1) keep their shares in every part when the split is stratified; None for
    regression. The result depends on nothing but the arguments.

    Raises DataError when no row is left to train on or the shares can't be kept.
    """
    validation, test = (max(1, round(f * rows)) for f in (split.validation, split.test))
    if validation + test >= rows:
        raise DataError(
            f"{rows} rows can't be split: validation takes {validation} and test {test}, which "
            "leaves none to train on. Lower `split.validation` or `split.test`, or add rows."
        )
    strata = labels if split.stratify else None
    if strata is not None:
        _check_strata(strata, (rows - validation - test, validation, test), class_names)
    rest, test_rows = _cut(np.arange(rows, dtype=np.int64), test, strata, split.seed)
    train, validation_rows = _cut(rest, validation, strata, split.seed)
    return SplitRows(train, validation_rows, test_rows)


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


def _check_strata(labels: Rows, parts: tuple[int, int, int], names: tuple[str, ...]) -> None:
    counts = np.bincount(labels)
    rarest = int(counts.argmin())
    name = names[rarest] if names else str(rarest)
    if counts[rarest] < _MIN_CLASS_ROWS:
        raise DataError(
            f"class {name!r} has {counts[rarest]} rows; a stratified split needs at least "
            f"{_MIN_CLASS_ROWS} of each class. Add rows, merge or drop the class, or set "
            "`split.stratify: false`. If y holds quantities, not classes, set `task: regression`."
        )
    if min(parts) < len(counts):
        raise DataError(
            f"a stratified split needs a row of each of the {len(counts)} classes in every part, "
            f"but train, validation and test get {', '.join(map(str, parts))} rows. Choose larger "
            "fractions, add rows, or set `split.stratify: false`."
        )
