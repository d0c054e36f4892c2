"""Optimizers traced in short: Keras's numbers to the last bit."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.keras

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "clipnorm": 0.5}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"gradient_accumulation_steps": 2}),
    ("AdamW", {}),
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
]


def trained(name: str, options: dict[str, Any], short: bool, dtype: str = "float32") -> list[Any]:
    """The variables after some steps, an embedding's with gradients of few rows among them."""
    import keras
    import tensorflow as tf

    from hpo.training.grappler import calling_with, optimizer_options
    from hpo.training.updates import short_updates

    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape), dtype=dtype) for shape in ((9, 4), (4,))]
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.05, **options)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(rows: tf.Tensor, factor: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((tf.gather(variables[0].value, rows) * variables[1].value) ** 2)
            loss = loss * factor
        optimizer.apply(tape.gradient(loss, [each.value for each in variables]), variables)

    kind = type(optimizer)
    shortened = short_updates(optimizer) if short else contextlib.nullcontext()
    with shortened, calling_with(optimizer_options()):
        for _ in range(4):
            rows = tf.constant(rng.integers(0, 9, 5), tf.int32)
            step(rows, tf.constant(rng.normal(), dtype))
    assert type(optimizer) is kind
    return [np.asarray(each) for each in (*variables, *optimizer.variables)]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_few_rows_and_other_options(name: str, options: dict[str, Any]) -> None:
    check_equal(trained(name, options, short=True), trained(name, options, short=False))


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_another_precision(name: str) -> None:
    check_equal(trained(name, {}, True, "float64"), trained(name, {}, False, "float64"))


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_tensorflow_variables(name: str) -> None:
    """As a `train_step` of the user's may hand them over."""
    import keras
    import tensorflow as tf

    from hpo.training.updates import short_updates

    variable = keras.Variable([1.0, 2.0])
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.1)
    optimizer.build([variable])
    with short_updates(optimizer):
        optimizer.apply([tf.constant([1.0, -1.0])], [variable.value])
    np.testing.assert_allclose(variable, [0.9, 2.1], atol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_dense_layers(name: str, options: dict[str, Any]) -> None:
    check_equal(epochs(name, options, short=True), epochs(name, options, short=False))


def epochs(name: str, options: dict[str, Any], short: bool) -> list[Any]:
    import keras
    import tensorflow as tf

    from hpo.training.grappler import calling_with, optimizer_options
    from hpo.training.updates import short_updates

    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(7, "relu"), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(3, "softmax")])
    optimizer = getattr(keras.optimizers, name)(learning_rate=0.05, **options)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    step = tf.function(model.train_step, autograph=False)
    shortened = short_updates(optimizer) if short else contextlib.nullcontext()
    with shortened, calling_with(optimizer_options()):
        for _ in range(5):
            x = rng.normal(size=(8, 5)).astype(np.float32)
            step((tf.constant(x), tf.constant(rng.integers(0, 3, 8))))
    return [np.asarray(each) for each in (*model.weights, *optimizer.variables)]


def check_equal(some: list[Any], others: list[Any]) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)
