from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from hpo.data.splits import SplitRows, split_rows
from hpo.errors import DataError
from hpo.spec.models import Split

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def as_lists(rows: SplitRows) -> list[list[int]]:
    return [part.tolist() for part in (rows.train, rows.validation, rows.test)]


@pytest.mark.parametrize("labels", [None, LABELS], ids=["values", "classes"])
@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_parts_are_disjoint_and_complete(labels: np.ndarray | None, seed: int) -> None:
    rows = split_rows(100, Split(seed=seed), labels)
    assert sorted(chain(*as_lists(rows))) == list(range(100))
    assert rows.counts == (60, 20, 20)


def test_same_arguments_same_split_another_seed_another() -> None:
    first = split_rows(100, Split(seed=7), LABELS)
    assert as_lists(split_rows(100, Split(seed=7), LABELS)) == as_lists(first)
    assert as_lists(split_rows(100, Split(seed=8), LABELS)) != as_lists(first)


def test_split_is_the_same_next_year() -> None:
    rows = split_rows(20, Split(seed=7), np.arange(20) % 2)
    assert rows.test.tolist() == [8, 12, 17, 15]
    assert rows.validation.tolist() == [7, 16, 4, 9]


def test_stratified_parts_keep_the_shares() -> None:
    rows = split_rows(100, Split(), LABELS)
    assert np.bincount(LABELS[rows.train]).tolist() == [36, 18, 6]
    assert np.bincount(LABELS[rows.validation]).tolist() == [12, 6, 2]
    assert np.bincount(LABELS[rows.test]).tolist() == [12, 6, 2]


def test_labels_do_not_count_when_not_stratified() -> None:
    split = Split(stratify=False)
    assert as_lists(split_rows(100, split, LABELS)) == as_lists(split_rows(100, split))


@pytest.mark.parametrize(
    ("rows", "validation", "test", "counts"),
    [
        (10, 0.01, 0.01, (8, 1, 1)),
        (11, 0.2, 0.2, (7, 2, 2)),
        (1797, 0.2, 0.2, (1079, 359, 359)),
        (103, 0.15, 0.25, (62, 15, 26)),
    ],
)
def test_counts_are_rounded_shares_of_all_rows(
    rows: int, validation: float, test: float, counts: tuple[int, int, int]
) -> None:
    assert split_rows(rows, Split(validation=validation, test=test)).counts == counts


def test_no_row_left_to_train_on() -> None:
    with pytest.raises(DataError, match="validation takes 5 and test 5, which leaves none"):
        split_rows(10, Split(validation=0.5, test=0.49))


def test_rare_class_is_named() -> None:
    labels = np.array([0] * 20 + [1] * 2)
    with pytest.raises(DataError, match=r"class 'dog' has 2 rows.*stratify: false") as e:
        split_rows(22, Split(), labels, ("cat", "dog"))
    assert "task: regression" in str(e.value)
    split_rows(22, Split(stratify=False), labels, ("cat", "dog"))


def test_part_smaller_than_the_number_of_classes() -> None:
    with pytest.raises(DataError, match=r"each of the 4 classes.* get 15, 4, 1 rows"):
        split_rows(20, Split(test=0.05), np.arange(20) % 4)


def test_class_used_up_by_the_first_cut() -> None:
    labels = np.array([0] * 27 + [1] * 3)
    with pytest.raises(DataError, match="class shares kept"):
        split_rows(30, Split(test=0.7, validation=0.2), labels)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_source_of_its_own_for_one_part(part: str) -> None:
    split = Split.model_validate({part: "held.csv"})
    parts = np.repeat(["", part], [20, 3])
    rows = split_rows(23, split, parts=parts)
    assert rows.counts == ((16, 3, 4) if part == "validation" else (16, 4, 3))
    assert getattr(rows, part).tolist() == [20, 21, 22]
