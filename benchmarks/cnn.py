"""A network in which the convolutions rule: what is tuned does not change its cost."""

from __future__ import annotations

import keras
import keras_tuner


def build(
    hp: keras_tuner.HyperParameters, input_shape: tuple[int, ...], num_outputs: int
) -> keras.Model:
    x = inputs = keras.Input(input_shape)
    for filters in (32, 64, 128):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5))(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, activation="softmax")(x))
