"""What Grappler is asked for: the same numbers as with all of it, and nobody else is concerned."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.keras


def test_the_parts_left_out_change_no_bit() -> None:
    import keras
    import tensorflow as tf

    from hpo.training.grappler import calling_with, optimizer_options

    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.BatchNormalization()]
    head = [keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, *head])
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype(np.float32)

    def gradients(pictures: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(pictures, training=True)[:, 0])
        found: list[tf.Tensor] = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return found

    whole = tf.function(gradients, autograph=False)(x)
    with calling_with(optimizer_options()):
        light = tf.function(gradients, autograph=False)(x)
    for one, other in zip(whole, light, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_options_hold_for_the_calls_inside_alone() -> None:
    from tensorflow.python.eager import context

    from hpo.training.grappler import calling_with, optimizer_options

    before = context.context().function_call_options.config_proto_serialized
    options = optimizer_options()
    with calling_with(options):
        assert context.context().function_call_options is options
    assert context.context().function_call_options.config_proto_serialized == before
    assert options.config_proto_serialized != before
