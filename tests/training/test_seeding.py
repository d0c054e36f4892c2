from __future__ import annotations

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest

pytestmark = pytest.mark.keras


def drawn() -> list[float]:
    """From every source of random numbers that a builder may use, and a layer's weights."""
    import keras
    import tensorflow as tf

    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    values = [
        random.random(),
        np.random.random(),  # noqa: NPY002
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
        *np.asarray(layer.kernel).ravel(),
    ]
    assert layer.name == "dense"
    return [float(value) for value in values]


def test_a_session_begins_as_with_keras_own_functions() -> None:
    import keras

    from hpo.training.seeding import begin_session

    def of_keras(seed: int) -> None:
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)

    def after(begin: Callable[[int], None], seed: int) -> list[float]:
        begin(seed)
        return drawn()

    assert after(begin_session, 7) == after(of_keras, 7)
    assert after(begin_session, 8) != after(of_keras, 7)


def test_a_policy_of_the_trial_before_is_forgotten() -> None:
    import keras

    from hpo.training.seeding import begin_session

    keras.config.set_dtype_policy("mixed_bfloat16")
    begin_session(1)
    assert keras.config.dtype_policy().name == "float32"


def test_a_session_begins_with_the_user_s_settings_and_leaves_other_threads_theirs() -> None:
    import keras

    from hpo.training.seeding import begin_session, end_session, keras_settings, restore_settings

    before = keras_settings()
    policies: list[str] = []

    def trial() -> None:
        restore_settings(given)
        for _ in range(2):
            begin_session(1, given)
            policies.append(keras.config.dtype_policy().name)
            assert keras.config.is_interactive_logging_enabled() is False
            assert keras.config.image_data_format() == "channels_last"
            assert keras.config.floatx() == "float32"
            # As a builder may, for itself.
            keras.config.set_dtype_policy("float64")
            keras.config.set_image_data_format("channels_first")
            keras.config.set_floatx("float64")
        end_session()
        policies.append(keras.config.dtype_policy().name)

    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.disable_interactive_logging()
        given = keras_settings()
        thread = threading.Thread(target=trial)
        thread.start()
        thread.join()
        assert keras_settings() == given
    finally:
        restore_settings(before)
    assert policies == ["mixed_bfloat16"] * 3
