from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hpo.data import open_search_data
from hpo.data.checks import check_features, check_finite, check_reshape, check_rows, check_table
from hpo.data.sources import RawData
from hpo.errors import DataError
from hpo.spec.models import DataSpec


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "message"),
    [
        ((12, 3), (11,), "x has 12 rows and y has 11"),
        ((12, 3), (), "x has 12 rows and y has no"),
        ((12,), (12,), r"shape \(12,\).*x\[:, None\]"),
        ((0, 3), (0,), "x is empty"),
        ((12, 0), (12,), "x is empty"),
        ((9, 3), (9,), "has 9 rows; expected at least 10"),
    ],
)
def test_rows(x_shape: tuple[int, ...], y_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_rows(RawData(np.zeros(x_shape), np.zeros(y_shape)))


@pytest.mark.parametrize("length", [8, 14])
def test_a_column_of_the_split_has_a_value_for_each_row(length: int) -> None:
    """Rows beyond its end would belong to no part, without a word."""
    raw = RawData(np.zeros((12, 3)), np.zeros(12), columns={"patient": np.zeros(length)})
    with pytest.raises(DataError, match=rf"'patient', .* has {length} values and y has 12"):
        check_rows(raw)


@pytest.mark.parametrize("shape", [(), (12, 2), (12, 1, 1)])
def test_a_column_of_the_split_has_one_axis(shape: tuple[int, ...]) -> None:
    raw = RawData(np.zeros((12, 3)), np.zeros(12), columns={"patient": np.zeros(shape)})
    with pytest.raises(DataError, match=rf"'patient', .* has shape {re.escape(str(shape))}; exp"):
        check_rows(raw)
    column = {"patient": np.zeros((12, 1))}
    check_rows(RawData(np.zeros((12, 3)), np.zeros(12), columns=column))


def test_a_single_number_is_no_array_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.float64(3), y=np.zeros(12))
    source = {"type": "npz", "path": "data.npz"}
    with pytest.raises(DataError, match=r"x has shape \(\); expected one row a sample"):
        open_search_data(DataSpec.model_validate({"source": source}), tmp_path)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e38])
def test_numbers_of_a_table_are_finite(value: float) -> None:
    ages = np.array([30, value, np.nan], np.float32)
    with pytest.raises(DataError, match=r"column 'age' has 1 of 3 values .* at row 1, counted"):
        check_table({"age": ages}, gaps=True)


def test_numbers_of_a_table_may_be_missing_or_not() -> None:
    columns = {"job": np.array(["a", "b"], object), "age": np.array([30, np.nan], np.float32)}
    check_table(columns, gaps=True)
    with pytest.raises(DataError, match="column 'age' is missing in row 1, counted from 0"):
        check_table(columns, gaps=False)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [("c16", "complex numbers"), ("U3", "strings"), ("S3", "byte"), ("M8[s]", "dates")],
)
def test_features_of_another_kind(dtype: str, message: str) -> None:
    with pytest.raises(DataError, match=f"x holds {message}.*expected real numbers"):
        check_features(np.zeros((10, 2), dtype=dtype))


@pytest.mark.parametrize("dtype", ["bool", "u1", "i8", "f2", "f4", "f8"])
def test_features_of_every_real_kind_pass(dtype: str) -> None:
    check_features(np.ones((10, 2), dtype=dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_first_bad_value_is_named(value: float) -> None:
    x = np.zeros((10, 3))
    x[4, 2] = x[7, 0] = value
    with pytest.raises(DataError, match=r"x has 2 of 30 values.*at row 4, index 2, counted from 0"):
        check_features(x)


def test_bad_value_of_a_picture_and_of_a_target() -> None:
    picture = np.zeros((10, 4, 4), dtype=np.float16)
    picture[3, 1, 2] = np.nan
    with pytest.raises(DataError, match=r"at row 3, index \(1, 2\)"):
        check_features(picture)
    with pytest.raises(DataError, match=r"y has 1 of 2 .* at row 1, counted"):
        check_finite(np.array([0, np.nan]), "y")


@pytest.mark.parametrize("reshape", [(8, 9), (-1, 8), (0,), (8, 8, 2)])
def test_reshape_that_does_not_fit(reshape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"a sample has shape \(64,\), which is 64 values"):
        check_reshape((64,), reshape)


def test_reshape_that_fits() -> None:
    check_reshape((64,), (8, 8, 1))
    check_reshape((64,), None)
