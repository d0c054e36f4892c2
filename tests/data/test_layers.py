from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.data.preprocessing import fit_preprocessing, fit_sequences
from hpo.spec.models import Preprocess

pytestmark = pytest.mark.keras

RNG = np.random.default_rng(3)
# A mean far above the spread, a tiny unit, a large one, a constant.
HARD = RNG.normal(size=(200, 4)) * [1, 1e-9, 1e9, 0] + [1e4, 0, 0, 0.1]
PICTURES = RNG.integers(0, 256, size=(50, 48)).astype(np.float64)


@pytest.mark.parametrize(
    ("x", "section"),
    [
        (HARD, {}),
        (HARD, {"normalize": "standard"}),
        (HARD, {"normalize": "minmax"}),
        (PICTURES, {"reshape": [4, 4, 3]}),
        (PICTURES, {"normalize": "standard", "reshape": [4, 4, 3]}),
    ],
)
def test_saved_layers_do_what_apply_does(
    x: np.ndarray, section: dict[str, Any], tmp_path: Path
) -> None:
    import keras

    from hpo.data.layers import raw_inputs

    fitted = fit_preprocessing(x, Preprocess.model_validate(section))
    keras.Model(*raw_inputs(fitted)).save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), fitted.apply(x), rtol=1e-6)


def test_layers_compute_in_float32_under_mixed_precision() -> None:
    import keras

    from hpo.data.layers import raw_inputs

    fitted = fit_preprocessing(HARD, Preprocess(normalize="standard"))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Model(*raw_inputs(fitted))
    finally:
        keras.config.set_dtype_policy(before)
    outputs = model(HARD.astype(np.float32))
    np.testing.assert_allclose(np.asarray(outputs), fitted.apply(HARD), rtol=1e-6)


@pytest.mark.parametrize("section", [{}, {"normalize": "robust", "missing": "mean"}])
def test_padding_is_masked_in_layers_as_in_apply(section: dict[str, Any], tmp_path: Path) -> None:
    import keras

    from hpo.data.layers import raw_inputs

    x = RNG.normal(5, 3, size=(40, 7, 2)).astype(np.float32)
    x[::3, 4:] = np.nan
    if section:
        x[1, 2] = x[2, 3, 0] = np.nan
    fitted = fit_sequences(x, Preprocess.model_validate(section))
    keras.Model(*raw_inputs(fitted)).save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    applied = fitted.apply(x)
    assert (applied[0, 4:] == fitted.mask_value).all()
    assert np.isfinite(applied).all()
    np.testing.assert_allclose(loaded.predict(x, verbose=0), applied, rtol=1e-6)
    shorter = x[::3, :5]
    np.testing.assert_allclose(loaded.predict(shorter, verbose=0), applied[::3, :5], rtol=1e-6)
