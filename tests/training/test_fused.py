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


@pytest.mark.parametrize("decay", [None, 0.01])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_updates_as_keras_to_the_last_bit(nesterov: bool, decay: float | None) -> None:
    def made() -> Any:
        optimizer = optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov, weight_decay=decay)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return make(optimizer)

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


def test_what_all_variables_share_is_reckoned_once() -> None:
    def powers(layers: int) -> int:
        dense = [keras.layers.Dense(4) for _ in range(layers)]
        model = make(optimizers.AdamW(0.01), lambda: [keras.Input((5,)), *dense])
        with fused_updates(model):
            graph = tf.function(
                lambda: model.train_step((tf.constant(X), tf.constant(Y))), autograph=False
            ).get_concrete_function()
        kinds = [op.type for op in graph.graph.get_operations()]
        assert kinds.count("ResourceApplyAdam") == 2 * layers + 2
        return kinds.count("Pow")

    assert powers(3) == powers(1) == 2


def test_a_step_that_updates_twice_counts_twice() -> None:
    """As two networks against each other do; what was shared by the first is not the second's."""

    class Twice(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            super().train_step(data)
            return super().train_step(data)

    def trained(*, fused: bool) -> list[Any]:
        keras.utils.set_random_seed(1)
        model = Twice([*numbers(), keras.layers.Dense(3, "softmax")])
        model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        return train(model, fused=fused)[0]

    for mine, other in zip(trained(fused=True), trained(fused=False), strict=True):
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
