"""What of a model need not be a constant of its graph: numbers, and the widths of dense layers.

A traced graph holds dropout rates, L1 and L2 factors, momentum and weight decay as constants, and
the shapes of weights as facts. Here they become variables and open dimensions, so that the graph
fits other models of the same structure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.regularizers.regularizers import L1, L1L2, L2

_layers = keras.layers
# In a model of these, nothing but the weights' shapes depends on a dense layer's width.
_OF_ANY_WIDTH = (
    _layers.InputLayer,
    _layers.Flatten,
    _layers.Dense,
    _layers.BatchNormalization,
    _layers.Activation,
    _layers.ReLU,
    _layers.LeakyReLU,
    _layers.ELU,
    _layers.Dropout,
)
_OF_EACH_ELEMENT = frozenset(
    [
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "hard_silu",
        "leaky_relu",
        "linear",
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "softsign",
        "tanh",
    ]
)
_optimizers = keras.optimizers
_UPDATE_EACH_ELEMENT = (
    _optimizers.SGD,
    _optimizers.RMSprop,
    _optimizers.Adam,
    _optimizers.AdamW,
)


@dataclass(frozen=True, eq=False)
class Number:
    """A number of a model: an attribute of a layer, a regularizer or the optimizer."""

    owner: Any
    attribute: str

    @property
    def kind(self) -> str:
        return f"{type(self.owner).__name__}.{self.attribute}"

    @property
    def value(self) -> float:
        return float(getattr(self.owner, self.attribute))

    def free(self) -> tf.Variable:
        """From now on the owner reads a variable, which is returned."""
        number = _VariableNumber(self.value)
        setattr(self.owner, self.attribute, number)
        if type(self.owner) is keras.layers.Dropout:
            self.owner.__class__ = VariableDropout
        return number.variable


class _VariableNumber(float):
    """Compares like the number that it was made of, and is a variable to TensorFlow."""

    variable: tf.Variable

    def __new__(cls, value: float) -> _VariableNumber:
        made = super().__new__(cls, value)
        made.variable = tf.Variable(value, trainable=False, dtype=tf.float32)
        return made

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return tf.cast(self.variable, dtype or tf.float32, name=name)


class VariableDropout(keras.layers.Dropout):  # type: ignore[misc]
    """Keras's dropout makes a constant of a rate that is a Python number, whatever else it is."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        rate = tf.convert_to_tensor(self.rate, inputs.dtype)
        # The numbers that Keras would draw.
        drawn = keras.random.uniform(
            self._drawn_shape(inputs), dtype=inputs.dtype, seed=self.seed_generator
        )
        return tf.where(drawn >= rate, inputs * (1 / (1 - rate)), tf.zeros([], inputs.dtype))

    def _drawn_shape(self, inputs: Any) -> Any:
        shape = tf.shape(inputs)
        if self.noise_shape is None:
            return shape
        return [shape[i] if n is None else n for i, n in enumerate(self.noise_shape)]


def free_numbers(model: keras.Model) -> list[Number]:
    """What can be freed; a zero can't, because Keras leaves out what it would do."""
    return list(_numbers(model))


def _numbers(model: keras.Model) -> Iterator[Number]:
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.Dropout and 0 < layer.rate < 1:
            yield Number(layer, "rate")
    seen: set[int] = set()
    for variable in model.trainable_variables:
        regularizer = variable.regularizer
        if type(regularizer) in (L1, L2, L1L2) and id(regularizer) not in seen:
            seen.add(id(regularizer))
            yield from _positive(regularizer, "l1", "l2")
    if type(model.optimizer) is keras.optimizers.SGD:
        yield from _positive(model.optimizer, "momentum")
    yield from _positive(model.optimizer, "weight_decay")


def _positive(owner: Any, *attributes: str) -> Iterator[Number]:
    for attribute in attributes:
        if getattr(owner, attribute, None):
            yield Number(owner, attribute)


@contextlib.contextmanager
def alike(numbers: Sequence[Number]) -> Iterator[None]:
    """Inside, all numbers are the same: models of the same structure are written down alike."""
    values = [getattr(number.owner, number.attribute) for number in numbers]
    for number in numbers:
        setattr(number.owner, number.attribute, 1)
    try:
        yield
    finally:
        for number, value in zip(numbers, values, strict=True):
            setattr(number.owner, number.attribute, value)


def free_widths(model: keras.Model) -> list[Number] | None:
    """The inner dense layers' numbers of units, None when the graph has to know them."""
    if type(model.optimizer) not in _UPDATE_EACH_ELEMENT or len(model.outputs) != 1:
        return None
    kinds = {type(variable.regularizer) for variable in model.trainable_variables}
    constrained = any(variable.constraint for variable in model.trainable_variables)
    if constrained or not kinds <= {L1, L2, L1L2, type(None)}:
        return None
    head = _head(model)
    # Of a functional model also what is no layer: sums of tensors and the like.
    parts = getattr(model, "operations", model.layers)
    if not all(_has_any_width(part, part is head) for part in parts):
        return None
    dense = [layer for layer in model.layers if type(layer) is keras.layers.Dense]
    return [Number(layer, "units") for layer in dense if layer is not head]


def open_widths(model: keras.Model) -> None:
    """From now on the weights and the optimizer's variables may be given other shapes."""
    outside = {id(weight) for weight in _head(model).weights}
    for weight in model.weights:
        _open(weight, keep_last=id(weight) in outside)
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables:
        _open(variable)


def give(variable: Any, other: Any) -> None:
    """Gives a variable another one's value, and its shape where shapes are open."""
    variable._shape = tuple(other.shape)
    variable.value.assign(other.value)


def _open(variable: Any, *, keep_last: bool = False) -> None:
    if variable.ndim == 0:
        return
    last = variable.shape[-1] if keep_last else None
    value = variable.value
    # Keras has no variables of open shape; TensorFlow has.
    variable._value = tf.Variable(
        value,
        shape=[*(None for _ in variable.shape[1:]), last],
        trainable=value.trainable,
        name=variable.name,
    )


def _head(model: keras.Model) -> Any:
    return model.outputs[0]._keras_history.operation


def _has_any_width(layer: Any, is_head: bool) -> bool:
    """Whether nothing in a layer but its weights depends on the width of it or the one before."""
    if type(layer) not in _OF_ANY_WIDTH or len(layer._inbound_nodes) > 1:
        return False
    if is_head and type(layer) is not keras.layers.Dense:
        return False
    rank = len(layer.output.shape)
    if isinstance(layer, keras.layers.Flatten):
        return len(layer.input.shape) > 2
    if isinstance(layer, keras.layers.BatchNormalization):
        return rank == 2 and layer.axis == -1 and not layer.renorm
    if isinstance(layer, keras.layers.Dense | keras.layers.Activation) and not is_head:
        # An activation may be a layer, which has no such name.
        return rank == 2 and getattr(layer.activation, "__name__", None) in _OF_EACH_ELEMENT
    return True
