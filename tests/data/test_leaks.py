from __future__ import annotations

import numpy as np

from hpo.data.leaks import rows_on_two_sides
from hpo.data.splits import SplitRows

SPLIT = SplitRows(np.arange(6), np.arange(6, 8), np.arange(8, 10))


def test_equal_rows_on_two_sides_are_told() -> None:
    x = np.arange(20.0).reshape(10, 2)
    assert rows_on_two_sides(x, SPLIT, None) == []
    x[9] = x[2]
    (words,) = rows_on_two_sides(x, SPLIT, None)
    assert words.startswith("1 of 2 test rows have the same features as a row of train")
    assert "the first is row 9" in words


def test_rows_of_a_table_are_compared_over_all_columns() -> None:
    x = {"a": np.array(list("ababababab")), "b": np.arange(10)}
    assert rows_on_two_sides(x, SPLIT, None) == []
    x["b"][7] = 1
    (words,) = rows_on_two_sides(x, SPLIT, None)
    assert words.startswith("1 of 2 validation rows")


def test_a_group_on_two_sides_is_told() -> None:
    x = np.arange(20.0).reshape(10, 2)
    groups = np.array(list("aabbccddee"))
    assert rows_on_two_sides(x, SPLIT, groups) == []
    groups[8] = "b"
    (words,) = rows_on_two_sides(x, SPLIT, groups)
    assert words == "1 groups stand in train and test, the first is 'b'"
