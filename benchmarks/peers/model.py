"""The model of every contestant, and the Keras callback that writes events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras

from benchmarks.peers.job import METRIC, record
from benchmarks.peers.space import declare

if TYPE_CHECKING:
    import keras_tuner


def make_model(
    values: Mapping[str, Any],
    input_shape: tuple[int, ...],
    num_outputs: int,
    steps_per_execution: int = 1,
) -> keras.Model:
    """A compiled multilayer perceptron from the values of one trial."""
    inputs = keras.Input(input_shape)
    x = inputs
    for i in range(values["depth"]):
        x = keras.layers.Dense(values[f"units_{i}"], use_bias=not values["batchnorm"])(x)
        if values["batchnorm"]:
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("relu")(x)
        x = keras.layers.Dropout(values["dropout"])(x)
    model = keras.Model(inputs, keras.layers.Dense(num_outputs, activation="softmax")(x))
    rate = values["learning_rate"]
    adam = values["optimizer"] == "adam"
    model.compile(
        optimizer=keras.optimizers.Adam(rate) if adam else keras.optimizers.SGD(rate, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def build(
    hp: keras_tuner.HyperParameters,
    input_shape: tuple[int, ...],
    num_outputs: int,
    steps_per_execution: int = 1,
) -> keras.Model:
    """The builder of KerasTuner and of this project."""
    return make_model(declare(hp), input_shape, num_outputs, steps_per_execution)


class EpochEvents(keras.callbacks.Callback):
    """Writes an event after each epoch of a trial."""

    def __init__(self, trial: int | str) -> None:
        super().__init__()
        self._trial = trial

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        record("epoch", self._trial, epoch=epoch + 1, value=float(logs[METRIC]))
