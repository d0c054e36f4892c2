"""Evaluation in large batches: only where the figures are those of small ones."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from hpo.training.epochs import evaluate
from hpo.training.evaluation import evaluation_batch
from hpo.training.freeing import free_numbers

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("deterministic")]

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(100, 6)).astype(np.float32)
CLASSES = RNG.integers(0, 3, size=100)
layers = keras.layers
losses = keras.losses


def dense(loss: Any = "sparse_categorical_crossentropy", **options: Any) -> Any:
    keras.utils.set_random_seed(1)
    hidden = layers.Dense(8, **{"activation": "relu", **options})
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3, "softmax")])
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


def squares(y: Any, predicted: Any) -> Any:
    return keras.ops.square(keras.ops.cast(y, "float32") - predicted[:, 0])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = layers.Dense(3, "softmax")

    def call(self, x: Any) -> Any:
        return self.head(x)


def subclassed() -> Any:
    model = Subclassed()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model(ROWS)
    return model


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        "mse",
        losses.SparseCategoricalCrossentropy(from_logits=True),
        {"dense_1": losses.SparseCategoricalCrossentropy(reduction="mean")},
    ],
)
def test_small_rows_of_which_each_counts_alone_go_in_large_batches(loss: Any) -> None:
    model = dense()
    if isinstance(loss, dict):
        loss = {model.layers[-1].name: next(iter(loss.values()))}
    model.compile("sgd", loss)
    assert evaluation_batch(model, ROWS, 32) == 2048
    assert evaluation_batch(model, ROWS, 4096) == 4096


def test_a_model_whose_numbers_are_variables_is_as_it_was() -> None:
    parts = [keras.Input((6,)), layers.Dense(8, kernel_regularizer="l2"), layers.Dropout(0.5)]
    model = keras.Sequential([*parts, layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    freed = [number.free() for number in free_numbers(model)]
    assert len(freed) == 2
    assert evaluation_batch(model, ROWS, 32) == 2048


def stateful() -> Any:
    """Takes batches of the size that it was made for alone."""
    inputs = [keras.Input(batch_shape=(32, 6)), layers.Reshape((3, 2))]
    model = keras.Sequential([*inputs, layers.LSTM(4, stateful=True), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: dense(losses.SparseCategoricalCrossentropy(reduction="sum")),
        lambda: dense(losses.Dice()),
        lambda: dense(squares),
        lambda: dense(activity_regularizer="l2"),
        lambda: dense(activation=lambda x: x - keras.ops.mean(x)),
        stateful,
        subclassed,
    ],
    ids=["sum", "dice", "own loss", "activity", "own activation", "stateful", "subclassed"],
)
def test_others_go_in_batches_as_large_as_training_s(make: Any) -> None:
    assert evaluation_batch(make(), ROWS, 32) == 32


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (losses.SparseCategoricalCrossentropy(reduction="sum"), {}),
        ("sparse_categorical_crossentropy", {"activity_regularizer": "l2"}),
        ("sparse_categorical_crossentropy", {"kernel_regularizer": "l2"}),
        (squares, {}),
    ],
)
def test_the_figures_are_those_of_keras(loss: Any, options: dict[str, Any]) -> None:
    model = dense(loss, **options)
    expected = model.evaluate(ROWS, CLASSES, batch_size=32, verbose=0, return_dict=True)
    assert evaluate(model, (ROWS, CLASSES), 32) == pytest.approx(expected, abs=1e-5)


def centered(x: Any) -> Any:
    return x - keras.ops.mean(x, axis=0)


def centered_inside(x: Any) -> Any:
    inputs = keras.Input(x.shape[1:])
    return keras.Model(inputs, centered(inputs))(x)


def softmax_in_time(x: Any) -> Any:
    steps = layers.TimeDistributed(layers.Softmax(axis=0))(layers.Reshape((4, 2))(x))
    return layers.Flatten()(steps)


@pytest.mark.parametrize(
    "mix",
    [
        centered,
        centered_inside,
        layers.UnitNormalization(axis=0),
        layers.UnitNormalization(axis=-2),
        layers.Softmax(axis=(0, 1)),
        layers.Softmax(axis=None),
        softmax_in_time,
        layers.Lambda(keras.ops.cumsum, arguments={"axis": 0}),
    ],
    ids=["operation", "inside", "axis 0", "axis -2", "axes", "all", "in a layer", "lambda"],
)
def test_a_model_that_mixes_rows_has_keras_s_figures(mix: Any) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = mix(layers.Dense(8, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = model.evaluate(ROWS, CLASSES, batch_size=32, verbose=0, return_dict=True)
    assert evaluate(model, (ROWS, CLASSES), 32) == pytest.approx(expected, abs=1e-5)


def test_normalized_rows_go_in_large_batches() -> None:
    normalized = [layers.LayerNormalization(), layers.BatchNormalization(), layers.Softmax()]
    wide = [layers.Reshape((4, 2)), layers.UnitNormalization(axis=[1, 2]), layers.Flatten()]
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), *normalized, *wide])
    model.add(layers.Dense(3, "softmax"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert evaluation_batch(model, ROWS, 32) == 2048


def attention(layer: Any, length: int | None, inner: int = 2) -> Any:
    inputs = keras.Input((length, inner))
    x = layers.GlobalAveragePooling1D()(layer(inputs, inputs))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("layer", "numbers"),
    [
        (layers.MultiHeadAttention(8, 4), 8 * 512 * 512),
        (layers.GroupQueryAttention(4, 4, 2), 4 * 512 * 512),
        (layers.Attention(), 512 * 512),
        (layers.AdditiveAttention(), 2 * 512 * 512),
    ],
)
def test_the_scores_of_attention_count(layer: Any, numbers: int) -> None:
    x = np.zeros((1, 512, 2), np.float32)
    expected = max(1, 2**22 // numbers)
    keras_layer = layer if not isinstance(layer, layers.Attention) else _of_a_list(layer)
    assert evaluation_batch(attention(keras_layer, 512), x, 1) == expected
    # The length may be known of the data alone.
    assert evaluation_batch(attention(keras_layer, None), x, 1) == expected


def _of_a_list(layer: Any) -> Any:
    return lambda query, value: layer([query, value])


def test_a_convolution_s_pictures_count_also_inside_of_a_model() -> None:
    inner = keras.Sequential([keras.Input((32, 32, 1)), layers.Conv2D(64, 3, padding="same")])
    outer = [keras.Input((32, 32, 1)), inner, layers.GlobalAveragePooling2D(), layers.Dense(3)]
    model = keras.Sequential(outer)
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.zeros((1, 32, 32, 1), np.float32)
    assert evaluation_batch(model, x, 32) == 2**22 // (32 * 32 * 64)
    assert evaluation_batch(model, x, 100) == 100
