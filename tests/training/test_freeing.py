"""Which dense networks one graph serves whatever their widths are, and which it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.keras


def widths(*layers: Any, shape: tuple[int, ...] = (6,), **compiled: Any) -> list[int] | None:
    import keras

    from hpo.training.freeing import free_widths

    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(**{"optimizer": "adam", "loss": "mse"} | compiled)
    free = free_widths(model)
    return None if free is None else [int(number.value) for number in free]


def test_plain_dense_networks() -> None:
    from keras import layers

    assert widths(layers.Dense(2)) == []
    assert widths(layers.Dense(5, "relu"), layers.Dense(2, "softmax")) == [5]
    blocks = [layers.Dense(5), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5)]
    assert widths(*blocks, layers.Dense(7, "tanh"), layers.Dense(2)) == [5, 7]
    flat = [layers.Flatten(), layers.Dense(5, "gelu"), layers.Dense(2)]
    assert widths(*flat, shape=(8, 8, 1)) == [5]


def conv() -> list[Any]:
    from keras import layers

    return [layers.Reshape((6, 1)), layers.Conv1D(3, 3), layers.Flatten(), layers.Dense(2)]


def layer_normalization() -> list[Any]:
    from keras import layers

    return [layers.Dense(5), layers.LayerNormalization(), layers.Dense(2)]


def softmax_inside() -> list[Any]:
    from keras import layers

    return [layers.Dense(5, "softmax"), layers.Dense(2)]


def flat_after_dense() -> list[Any]:
    from keras import layers

    return [layers.Dense(5), layers.Flatten(), layers.Dense(2)]


def constrained() -> list[Any]:
    import keras

    return [keras.layers.Dense(5, kernel_constraint="max_norm"), keras.layers.Dense(2)]


def regularized_by_shape() -> list[Any]:
    import keras

    factor = keras.regularizers.OrthogonalRegularizer(0.1)
    return [keras.layers.Dense(5, kernel_regularizer=factor), keras.layers.Dense(2)]


def activated_at_the_end() -> list[Any]:
    from keras import layers

    return [layers.Dense(5), layers.Dense(2), layers.Activation("softmax")]


def normalized_along_another_axis() -> list[Any]:
    from keras import layers

    return [layers.Dense(5), layers.BatchNormalization(axis=1), layers.Dense(2)]


def activated_by_a_layer() -> list[Any]:
    from keras import layers

    return [layers.Dense(5, activation=layers.LeakyReLU(0.2)), layers.Dense(2)]


@pytest.mark.parametrize(
    "layers",
    [
        conv,
        layer_normalization,
        softmax_inside,
        flat_after_dense,
        constrained,
        regularized_by_shape,
        activated_at_the_end,
        normalized_along_another_axis,
        activated_by_a_layer,
    ],
)
def test_widths_that_the_graph_has_to_know(layers: Callable[[], list[Any]]) -> None:
    assert widths(*layers()) is None


def test_optimizers_that_look_at_whole_weights() -> None:
    import keras

    dense = [keras.layers.Dense(5), keras.layers.Dense(2)]
    assert widths(*dense, optimizer=keras.optimizers.Lamb()) is None
    accumulating = keras.optimizers.Adam(gradient_accumulation_steps=2)
    assert widths(*dense, optimizer=accumulating) is None


def test_models_that_are_no_chain() -> None:
    import keras
    from keras import layers

    from hpo.training.freeing import free_widths

    inputs = keras.Input((6,))
    shared = layers.Dense(6)
    twice = keras.Model(inputs, layers.Dense(2)(shared(shared(inputs))))
    two_heads = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(2)(inputs)])
    added = keras.Model(inputs, layers.Dense(2)(layers.Dense(6)(inputs) + inputs))
    for model in (twice, two_heads, added):
        model.compile("adam", "mse")
        assert free_widths(model) is None
