"""One traced graph for models that differ in numbers only.

Tracing an epoch costs a small model more than training it. Trials of the same structure (layers,
sizes, activations, optimizer, batch size) share one graph: their dropout rates, L1 and L2 factors,
momentum, weight decay and learning rate are variables in it, and a trial begins with its own
weights and numbers there. Whether a graph is new or used again makes no difference to the last bit.

Only what Keras can write down whole is shared: functional and sequential models of its own layers,
losses and metrics. Code of the user's inside a model may hold anything, so such a model gets a
graph of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional
from keras.src.regularizers.regularizers import L1, L1L2, L2
from numpy.typing import NDArray

from hpo.training.compiling import Settings, base_rate
from hpo.training.epochs import EpochRunner

# A small network's graph takes 5 to 10 MB; the trainer's limit on memory bounds larger ones.
_GRAPHS = 32

_LAYERS = "keras.src.layers."
# They may hold what was learned from data, as constants of the graph.
_LEARNING_LAYERS = "keras.src.layers.preprocessing."


@dataclass(frozen=True, eq=False)
class Traced:
    """A model and the graphs of its epochs."""

    model: keras.Model
    runner: EpochRunner


class GraphCache:
    """The traced epochs of a trainer by the structure of their models; the latest used are kept."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[str, _SharedGraph] = OrderedDict()

    def traced(
        self, model: keras.Model, settings: Settings, trace: Callable[[], EpochRunner]
    ) -> Traced:
        """The graphs for a new model, which is then the given one or one with its weights.

        Args:
            trace: Traces the given model's epochs.
        """
        numbers = list(_numbers(model))
        structure = _structure(model, settings, numbers)
        if structure is None:
            return Traced(model, trace())
        values = [number.value for number in numbers]
        graph = self._graphs.pop(structure, None)
        if graph is None:
            variables = [number.free() for number in numbers]
            graph = _SharedGraph(Traced(model, trace()), variables)
        else:
            graph.begin(model, values)
        self._graphs[structure] = graph
        if len(self._graphs) > _GRAPHS:
            self._graphs.popitem(last=False)
        return graph.traced


class _SharedGraph:
    def __init__(self, traced: Traced, variables: list[tf.Variable]) -> None:
        self.traced = traced
        self._variables = variables
        self._optimizer: list[NDArray[Any]] = [
            np.asarray(variable) for variable in traced.model.optimizer.variables
        ]

    def begin(self, model: keras.Model, values: list[float]) -> None:
        """Takes over a new model's weights and numbers, with an optimizer that has done nothing."""
        ours = self.traced.model
        for weight, new in zip(ours.weights, model.weights, strict=True):
            weight.assign(new)
        for variable, first in zip(ours.optimizer.variables, self._optimizer, strict=True):
            variable.assign(first)
        if base_rate(ours) is not None:
            ours.optimizer.learning_rate.assign(model.optimizer.learning_rate)
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)


@dataclass(frozen=True, eq=False)
class _Number:
    """A number of a model that need not be a constant of its graph."""

    owner: Any
    attribute: str

    @property
    def value(self) -> float:
        return float(getattr(self.owner, self.attribute))

    def free(self) -> tf.Variable:
        """From now on the owner reads a variable, which is returned."""
        number = _VariableNumber(self.value)
        setattr(self.owner, self.attribute, number)
        if type(self.owner) is keras.layers.Dropout:
            self.owner.__class__ = _VariableDropout
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


class _VariableDropout(keras.layers.Dropout):  # type: ignore[misc]
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


def _numbers(model: keras.Model) -> Iterator[_Number]:
    """What can be freed; a zero can't, because Keras leaves out what it would do."""
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.Dropout and 0 < layer.rate < 1:
            yield _Number(layer, "rate")
    seen: set[int] = set()
    for variable in model.trainable_variables:
        regularizer = variable.regularizer
        if type(regularizer) in (L1, L2, L1L2) and id(regularizer) not in seen:
            seen.add(id(regularizer))
            yield from _positive(regularizer, "l1", "l2")
    if type(model.optimizer) is keras.optimizers.SGD:
        yield from _positive(model.optimizer, "momentum")
    yield from _positive(model.optimizer, "weight_decay")


def _positive(owner: Any, *attributes: str) -> Iterator[_Number]:
    for attribute in attributes:
        if getattr(owner, attribute, None):
            yield _Number(owner, attribute)


def _structure(model: keras.Model, settings: Settings, numbers: list[_Number]) -> str | None:
    """All that the graphs of a model's epochs depend on, None when that can't be told."""
    if type(model) not in (Functional, keras.Sequential) or not _is_plain_optimizer(model):
        return None
    if not all(layer.built and _is_plain(layer) for layer in model._flatten_layers()):
        return None
    with _alike(numbers):
        written = keras.saving.serialize_keras_object(model)
        compiled = keras.saving.serialize_keras_object(model.get_compile_config())
    written.pop("compile_config", None)
    if base_rate(model) is not None:
        del compiled["optimizer"]["config"]["learning_rate"]
    if not (_is_all_of_keras(written) and _is_all_of_keras(compiled)):
        return None
    kinds = [(type(number.owner).__name__, number.attribute) for number in numbers]
    settled = [settings.batch_size, settings.augment.model_dump()]
    return json.dumps([written, compiled, kinds, settled], default=repr, sort_keys=True)


@contextlib.contextmanager
def _alike(numbers: list[_Number]) -> Iterator[None]:
    """Inside, all numbers are the same: two models of the same structure are written alike."""
    values = [number.value for number in numbers]
    for number in numbers:
        setattr(number.owner, number.attribute, 0.5)
    yield
    for number, value in zip(numbers, values, strict=True):
        setattr(number.owner, number.attribute, value)


def _is_plain_optimizer(model: keras.Model) -> bool:
    optimizer = model.optimizer
    wrapped = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    own = type(optimizer).__module__.startswith("keras.src.optimizers.")
    return own and not wrapped and not optimizer.use_ema


def _is_plain(layer: Any) -> bool:
    """Whether a layer, or the model that holds it, is Keras's own in every part."""
    if type(layer) not in (Functional, keras.Sequential):
        module = type(layer).__module__
        if not module.startswith(_LAYERS) or module.startswith(_LEARNING_LAYERS):
            return False
    functions = [value for value in vars(layer).values() if callable(value)]
    return all(_home(value).startswith("keras.") for value in functions)


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", None) or type(value).__module__)


def _is_all_of_keras(written: Any) -> bool:
    """Whether no part of a configuration is code of the user's."""
    if isinstance(written, dict):
        name = written.get("class_name")
        if name == "__lambda__":
            return False
        if name is not None and not str(name).startswith("__"):
            module = written.get("module")
            if module is None or module.partition(".")[0] != "keras":
                return False
        return all(map(_is_all_of_keras, written.values()))
    if isinstance(written, list | tuple):
        return all(map(_is_all_of_keras, written))
    return True
