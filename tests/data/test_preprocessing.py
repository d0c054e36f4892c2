from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpo.data.preprocessing import FittedPreprocessing, fit_preprocessing
from hpo.errors import DataError
from hpo.spec.models import Preprocess


def fit(x: np.ndarray, **section: Any) -> FittedPreprocessing:
    return fit_preprocessing(x, Preprocess.model_validate(section))


def test_none_only_casts(table: tuple[np.ndarray, np.ndarray]) -> None:
    fitted = fit(table[0])
    applied = fitted.apply(table[0])
    assert applied.dtype == np.float32
    np.testing.assert_array_equal(applied, table[0].astype(np.float32))


def test_standard_has_zero_mean_and_unit_variance(table: tuple[np.ndarray, np.ndarray]) -> None:
    applied = fit(table[0], normalize="standard").apply(table[0])
    np.testing.assert_allclose(applied.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(applied.std(axis=0), 1, rtol=1e-5)


def test_minmax_spans_0_to_1(table: tuple[np.ndarray, np.ndarray]) -> None:
    applied = fit(table[0], normalize="minmax").apply(table[0])
    np.testing.assert_allclose(applied.min(axis=0), 0)
    np.testing.assert_allclose(applied.max(axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize("normalize", ["standard", "minmax"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3e-12])
def test_constant_feature_is_only_shifted(normalize: str, value: float) -> None:
    x = np.column_stack([np.arange(50.0), np.full(50, value)])
    fitted = fit(x, normalize=normalize)
    assert fitted.scale[1] == 1
    elsewhere = fitted.apply(np.array([[0.0, value + 16]]))
    assert elsewhere[0, 1] == pytest.approx(16)


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e30])
def test_small_and_large_units_are_no_constants(unit: float) -> None:
    x = np.random.default_rng(1).normal(size=(50, 1))
    for normalize in ("standard", "minmax"):
        plain, scaled = (fit(a, normalize=normalize).apply(a) for a in (x, x * unit))
        np.testing.assert_allclose(scaled, plain, rtol=1e-5, atol=1e-6)


def test_pictures_are_normalized_per_channel() -> None:
    rng = np.random.default_rng(2)
    pictures = rng.integers(0, 256, size=(30, 5, 4, 3)).astype(np.uint8)
    fitted = fit(pictures, normalize="standard")
    assert len(fitted.scale) == 3
    np.testing.assert_allclose(fitted.apply(pictures).mean(axis=(0, 1, 2)), 0, atol=1e-6)


def test_reshape_goes_before_normalizing() -> None:
    fitted = fit(np.arange(640.0).reshape(10, 64), normalize="minmax", reshape=[8, 8, 1])
    assert fitted.input_shape == (8, 8, 1)
    assert fitted.offset == (0.0,)
    assert fitted.apply(np.zeros((3, 64))).shape == (3, 8, 8, 1)


def test_apply_leaves_its_input_alone() -> None:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    fit(x, normalize="standard").apply(x)
    np.testing.assert_array_equal(x, np.arange(20).reshape(10, 2))


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(3,\) a sample; expected \(2,\)"):
        fit(np.zeros((10, 2))).apply(np.zeros((1, 3)))


def test_reshape_that_does_not_fit() -> None:
    with pytest.raises(DataError, match=r"\[3, 3\] does not fit"):
        fit(np.zeros((10, 8)), reshape=[3, 3])
