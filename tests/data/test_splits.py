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


def test_a_column_says_the_part() -> None:
    column = np.array(["train", "val", "Test", "train", "validation"])
    rows = split_rows(5, Split(column="part"), columns={"part": column})
    assert as_lists(rows) == [[0, 3], [1, 4], [2]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            ["train", "holdout", "test"],
            "'part' must say train, validation or test.*'holdout' in row 1",
        ),
        (["train", "test", "test"], "no row is in validation"),
    ],
)
def test_a_column_that_says_something_else(column: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_rows(3, Split(column="part"), columns={"part": np.array(column)})


def test_groups_stay_together() -> None:
    groups = np.repeat(np.arange(30), 10)
    np.random.default_rng(3).shuffle(groups)
    rows = split_rows(300, Split(group="patient", seed=1), columns={"patient": groups})
    sides = [set(groups[part].tolist()) for part in (rows.train, rows.validation, rows.test)]
    assert sides[0].isdisjoint(sides[1] | sides[2])
    assert sides[1].isdisjoint(sides[2])
    assert rows.counts == (180, 60, 60)
    again = split_rows(300, Split(group="patient", seed=1), columns={"patient": groups})
    assert as_lists(again) == as_lists(rows)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.array(["a", "", "b", "c"]), "missing in 1 of 4 rows, the first is row 1"),
        (np.array([1, 2, np.nan, np.nan]), "missing in 2 of 4 rows, the first is row 2"),
        (np.array(["a", "b", None, ""], object), "missing in 2 of 4 rows, the first is row 2"),
        (np.array(["2020-01-01", "NaT"], "M8[D]"), "missing in 1 of 2 rows"),
        (np.array([1, 1, 1]), "has 1 group; expected"),
        (np.array([1, 1, 2]), "has 2 groups; expected"),
    ],
)
def test_groups_that_cannot_be_kept_together(groups: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=f"`split.group` (is|has) .*{message.split(' ', 1)[1]}"):
        split_rows(len(groups), Split(group="g"), columns={"g": groups})


def test_one_huge_group_leaves_a_group_for_every_part() -> None:
    groups = np.array([0] * 97 + [1, 2, 3])
    rows = split_rows(100, Split(group="g"), columns={"g": groups})
    assert min(rows.counts) >= 1
    with pytest.raises(DataError, match="has 2 groups"):
        split_rows(100, Split(group="g"), columns={"g": np.arange(100) % 2})


def test_no_future_in_the_past() -> None:
    days = np.random.default_rng(5).integers(0, 50, 400)
    rows = split_rows(400, Split(time="day"), columns={"day": days})
    assert days[rows.train].max() < days[rows.validation].min()
    assert days[rows.validation].max() < days[rows.test].min()
    for count, wanted in zip(rows.counts, (240, 80, 80), strict=True):
        assert abs(count - wanted) <= 20


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.array(["1/2/2020"] * 9), "holds texts such as '1/2/2020'"),
        (np.array([1.0, np.nan, 3.0]), "missing in row 1"),
        (np.array(["2020-01-01", "NaT"], "M8[D]"), "missing in row 1"),
        (np.array([1, 1, 2, 2]), "has 2 different values, which can't be cut"),
    ],
)
def test_times_that_cannot_be_ordered_or_cut(times: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_rows(len(times), Split(time="t"), columns={"t": times})


def test_parts_of_their_own_and_the_rest_at_random() -> None:
    parts = np.array([""] * 40 + ["test"] * 5)
    rows = split_rows(45, Split(test="other.csv", stratify=False), parts=parts)
    assert rows.test.tolist() == list(range(40, 45))
    assert rows.counts == (32, 8, 5)
    both = np.array([""] * 40 + ["validation"] * 3 + ["test"] * 2)
    assert split_rows(45, Split(validation="v", test="t"), parts=both).counts == (40, 3, 2)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_source_of_its_own_for_one_part(part: str) -> None:
    split = Split.model_validate({part: "held.csv"})
    parts = np.repeat(["", part], [20, 3])
    rows = split_rows(23, split, parts=parts)
    assert rows.counts == ((16, 3, 4) if part == "validation" else (16, 4, 3))
    assert getattr(rows, part).tolist() == [20, 21, 22]


def test_a_class_that_one_part_of_its_own_has_alone() -> None:
    parts = np.repeat(["", "test"], [20, 3])
    labels = np.array([0, 2] * 10 + [0, 1, 2])
    rows = split_rows(23, Split(test="held.csv"), labels, ("cat", "dog", "fox"), parts=parts)
    assert np.bincount(labels[rows.train]).tolist() == [8, 0, 8]
    labels[:2] = 1
    with pytest.raises(DataError, match="class 'dog' has 2 rows"):
        split_rows(23, Split(test="held.csv"), labels, ("cat", "dog", "fox"), parts=parts)


def test_groups_stay_together_beside_a_part_of_its_own() -> None:
    parts = np.array([""] * 40 + ["test"] * 5)
    patients = np.array([row // 4 for row in range(40)] + [99] * 5)
    split = Split(validation=0.25, test="held.csv", group="patient", stratify=False)
    found = split_rows(45, split, columns={"patient": patients}, parts=parts)
    assert found.counts == (28, 12, 5) or found.counts == (32, 8, 5)
    assert not set(patients[found.train]) & set(patients[found.validation])
    other = split.model_copy(update={"seed": 1})
    again = split_rows(45, other, columns={"patient": patients}, parts=parts)
    assert set(patients[again.validation]) != set(patients[found.validation])
    with pytest.raises(DataError, match=r"`split\.group` has a single value"):
        split_rows(45, split, columns={"patient": np.zeros(45)}, parts=parts)


def test_time_goes_on_beside_a_part_of_its_own() -> None:
    parts = np.array([""] * 40 + ["test"] * 5)
    times = np.array([(7 * row) % 40 // 2 for row in range(40)] + [0] * 5)
    split = Split(validation=0.25, test="held.csv", time="day", stratify=False)
    found = split_rows(45, split, columns={"day": times}, parts=parts)
    assert found.counts == (30, 10, 5)
    assert times[found.train].max() < times[found.validation].min()


def test_a_column_goes_with_no_part_of_its_own() -> None:
    with pytest.raises(ValueError, match="the column 'part' says the part of each row"):
        Split(test="held.csv", column="part")
