"""Updates in one operation: what Keras's own updates would have made of the variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hpo.training.fused import fused_updates

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("deterministic")]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 5)).astype(np.float32)
WORDS = RNG.integers(0, 10, size=(64, 4)).astype(np.int32)
Y = RNG.integers(0, 3, size=64).astype(np.int32)

optimizers = keras.optimizers


def numbers() -> list[Any]:
    return [keras.Input((5,)), keras.layers.Dense(8)]


def words() -> list[Any]:
    layers = keras.layers
    return [keras.Input((4,), dtype="int32"), layers.Embedding(10, 6), layers.Flatten()]


def make(optimizer: Any, layers: Callable[[], list[Any]] = numbers) -> Any:
    """A compiled classifier; the same weights each time."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([*layers(), keras.layers.Dense(3, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def train(model: Any, x: Any = X, *, fused: bool, jit: bool = False) -> tuple[list[Any], set[str]]:
    """The variables after some steps, and the kinds of operations in the graph of a step."""

    def step() -> Any:
        return model.train_step((tf.constant(x), tf.constant(Y)))

    function = tf.function(step, autograph=False, jit_compile=jit or None)
    if fused:
        with fused_updates(model):
            graph = function.get_concrete_function()
    else:
        graph = function.get_concrete_function()
    for _ in range(10):
        graph()
    variables = [*model.weights, *model.optimizer.variables]
    return [np.asarray(v) for v in variables], {op.type for op in graph.graph.get_operations()}


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_updates_as_keras_to_the_last_bit(nesterov: bool) -> None:
    def made() -> Any:
        return make(optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov))

    ours, operations = train(made(), fused=True)
    theirs, _ = train(made(), fused=False)
    assert "ResourceApplyKerasMomentum" in operations
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


ADAMS: dict[str, Callable[[], Any]] = {
    "plain": lambda: optimizers.Adam(0.01),
    "decay": lambda: optimizers.Adam(0.01, weight_decay=0.1, clipnorm=1.0),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "accumulated": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "betas": lambda: optimizers.Adam(0.01, beta_1=0.5, beta_2=0.9, epsilon=1e-3),
    "scheduled": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
}


@pytest.mark.parametrize("name", ADAMS)
def test_adam_updates_as_keras_but_for_the_last_digits(name: str) -> None:
    ours, operations = train(make(ADAMS[name]()), fused=True)
    theirs, _ = train(make(ADAMS[name]()), fused=False)
    assert operations & {"ResourceApplyAdam", "If", "StatelessIf"}
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_xla_takes_fused_updates() -> None:
    ours, _ = train(make(optimizers.Adam(0.01)), fused=True, jit=True)
    theirs, _ = train(make(optimizers.Adam(0.01)), fused=False, jit=True)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


class OwnAdam(keras.optimizers.Adam):  # type: ignore[misc]
    """An optimizer of the user's own, which may do anything in its update."""


KEPT: dict[str, Callable[[], Any]] = {
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "derived": lambda: OwnAdam(0.01),
    "no momentum": lambda: optimizers.SGD(0.1),
    "another": lambda: optimizers.RMSprop(0.01),
}


@pytest.mark.parametrize("name", KEPT)
def test_other_updates_stay_keras_own(name: str) -> None:
    ours, operations = train(make(KEPT[name]()), fused=True)
    theirs, expected = train(make(KEPT[name]()), fused=False)
    assert operations == expected
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


SPARSE: dict[str, Callable[[], Any]] = {
    "adam": lambda: optimizers.Adam(0.01),
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", SPARSE)
def test_gradients_of_single_rows_are_left_to_keras(name: str) -> None:
    ours, _ = train(make(SPARSE[name](), words), WORDS, fused=True)
    theirs, _ = train(make(SPARSE[name](), words), WORDS, fused=False)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_an_optimizer_is_its_own_kind_again() -> None:
    model = make(optimizers.AdamW(0.01))
    with fused_updates(model):
        assert type(model.optimizer) is not optimizers.AdamW
    assert type(model.optimizer) is optimizers.AdamW
    with pytest.raises(ZeroDivisionError), fused_updates(model):
        raise ZeroDivisionError
    assert type(model.optimizer) is optimizers.AdamW
