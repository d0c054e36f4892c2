"""One traced graph for models of the same structure.

Tracing an epoch costs a small model more than training it. Trials of the same structure (layers,
activations, optimizer, batch size) share one graph: their dropout rates, L1 and L2 factors,
momentum, weight decay and learning rate are variables in it, in plain dense networks the widths are
open too, and a trial begins with its own weights and numbers there. Whether a graph is new or used
again makes no difference to the last bit.

Only what Keras can write down whole is shared: functional and sequential models of its own layers,
losses and metrics. Code of the user's inside a model may hold anything, so such a model gets a
graph of its own.
"""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from hpo.training.compiling import Settings, base_rate
from hpo.training.epochs import EpochRunner
from hpo.training.freeing import (
    Number,
    alike,
    free_numbers,
    free_widths,
    give,
    open_widths,
)
from hpo.training.plain import is_plain, written_compilation, written_model

# A small network's graph takes 5 to 10 MB beside its variables.
_GRAPHS = 32
# Of all kept models together, weights and optimizer: 256 MB of float32.
_VARIABLES = 2**26


@dataclass(frozen=True, eq=False)
class Traced:
    """A model and the graphs of its epochs."""

    model: keras.Model
    runner: EpochRunner


@dataclass(frozen=True, eq=False)
class Structure:
    """What a model's graphs depend on, written down, and the variables that its numbers are."""

    written: str
    numbers: Sequence[tf.Variable]


class GraphCache:
    """The traced epochs of a trainer by the structure of their models.

    The latest used are kept, as many as the bounds above allow; a large model's is never kept.
    """

    def __init__(self) -> None:
        self._graphs: OrderedDict[str, _SharedGraph] = OrderedDict()
        self._frozen = False
        self._latest: weakref.ref[keras.Model] | None = None

    def traced(
        self,
        model: keras.Model,
        settings: Settings,
        trace: Callable[[Structure | None], EpochRunner],
    ) -> Traced:
        """The graphs for a new model, which is then the given one or one with its weights.

        Args:
            trace: Traces the given model's epochs, or finds them by its structure, if it has one.
        """
        if not is_plain(model):
            return Traced(model, trace(None))
        numbers, widths = free_numbers(model), free_widths(model)
        structure = _structure(model, settings, numbers, widths)
        if structure is None:
            return Traced(model, trace(None))
        graph = self._graphs.pop(structure, None)
        if graph is None:
            variables = [number.free() for number in numbers]
            if widths is not None:
                open_widths(model)
            runner = trace(Structure(structure, variables))
            graph = _SharedGraph(Traced(model, runner), variables)
        else:
            graph.begin(model, [number.value for number in numbers])
        self._graphs[structure] = graph
        while len(self._graphs) > _GRAPHS or self._variables() > _VARIABLES:
            self._graphs.popitem(last=False)
            if self._frozen:
                # It lies in cycles, which are out of the collector's reach.
                gc.unfreeze()
                self._frozen = False
        return graph.traced

    def watch(self, model: keras.Model) -> None:
        """Takes note of a trial's model, which code of the user's may keep."""
        self._latest = weakref.ref(model)

    def settle(self) -> None:
        """Takes what is kept out of the garbage collector's sight, between two trials.

        Keras's models need a collection with each trial, and it would go through everything that
        was kept before, and through all else that lives in the process.
        """
        gc.collect()
        latest = None if self._latest is None else self._latest()
        if latest is not None and all(g.traced.model is not latest for g in self._graphs.values()):
            # A HyperModel that keeps its model lets go of it at the next build. Out of sight, that
            # one would stay.
            return
        gc.freeze()
        self._frozen = True

    def _variables(self) -> int:
        return sum(graph.variables for graph in self._graphs.values())


@dataclass(frozen=True, eq=False)
class _SharedGraph:
    traced: Traced
    numbers: list[tf.Variable]

    @property
    def variables(self) -> int:
        """How many numbers it holds on the device."""
        model = self.traced.model
        held = [*model.weights, *model.optimizer.variables]
        return sum(math.prod(variable.shape) for variable in held)

    def begin(self, model: keras.Model, numbers: list[float]) -> None:
        """Takes over a new model's weights, its numbers and its optimizer's first state."""
        model.optimizer.build(model.trainable_variables)
        ours = self.traced.model
        for variable, new in zip(ours.weights, model.weights, strict=True):
            give(variable, new)
        for variable, new in zip(ours.optimizer.variables, model.optimizer.variables, strict=True):
            give(variable, new)
        for variable, value in zip(self.numbers, numbers, strict=True):
            variable.assign(value)


def _structure(
    model: keras.Model,
    settings: Settings,
    numbers: Sequence[Number],
    widths: Sequence[Number] | None,
) -> str | None:
    """All that the graphs of a model's epochs depend on, None when it holds code of the user's."""
    with alike([*numbers, *(widths or ())]):
        written = written_model(model)
        compiled = written_compilation(model)
    if written is None or compiled is None:
        return None
    written.pop("compile_config", None)
    if base_rate(model) is not None:
        del compiled["optimizer"]["config"]["learning_rate"]
    if widths is not None:
        written = _without_shapes(written)
    kinds = [number.kind for number in numbers]
    settled = [settings.batch_size, settings.augment.model_dump()]
    parts = [written, compiled, _unwritten(model), kinds, settled]
    return json.dumps(parts, default=repr, sort_keys=True)


def _unwritten(model: keras.Model) -> list[Any]:
    """What graphs depend on and Keras does not write down with a model.

    Single variables and layers inside of layers may be frozen, layers may share one regularizer,
    and variables may be left out of weight decay.
    """
    regularizers: dict[int, int] = {}

    def same(regularizer: Any) -> int:
        return regularizers.setdefault(id(regularizer), len(regularizers))

    layers = [
        [layer.trainable, same(layer.activity_regularizer)] for layer in model._flatten_layers()
    ]
    weights = [
        [weight.trainable, same(weight.regularizer), model.optimizer._use_weight_decay(weight)]
        for weight in model.weights
    ]
    return [layers, weights]


def _without_shapes(written: Any) -> Any:
    if isinstance(written, dict):
        shapes = ("build_config", "shape")
        return {key: _without_shapes(value) for key, value in written.items() if key not in shapes}
    if isinstance(written, list | tuple):
        return [_without_shapes(value) for value in written]
    return written
