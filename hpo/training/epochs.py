"""One epoch in one graph call.

`model.fit` comes back to Python for every batch, which costs more than the batch itself when a
model is small. Here the data lies on the device, and one `tf.function` loops over
`model.train_step`, so losses, metrics and a custom `train_step` mean the same as in Keras.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional
from keras.src.random.seed_generator import global_seed_generator
from numpy.typing import NDArray
from tensorflow.python.framework.ops import gradient_registry

from hpo.data.tensors import as_tensor
from hpo.training.augment import Augmentation
from hpo.training.evaluation import evaluation_batch
from hpo.training.fused import fused_updates
from hpo.training.graphs import GraphFiles
from hpo.training.grappler import calling_with, optimizer_options
from hpo.training.plain import written_compilation
from hpo.training.seeding import assign_seeds, seed_generators

# Arrays with a first axis of rows; the features may be several by name.
_Arrays = tuple[Any, ...]
_Epoch = Callable[[Any], dict[str, Any]]


class EpochRunner:
    """Trains and evaluates a compiled model on data that fits in memory.

    What an epoch reports is what the history of `model.fit` has, without what is no single number.

    Args:
        model: Compiled; its optimizer and metrics are built here, so that tracing happens once.
        train: `(x, y)` or `(x, y, sample_weight)`, arrays with a first axis of rows; `x` may be
            arrays by name.
        validation: `(x, y)`.
        batch_size: Rows a step; the last step of an epoch takes what is left.
        augment: Changes the features of a training batch.
        files: Where other trainers' graphs of such models lie.
        traced: Whether there is to be a graph. Without it an epoch is one step, for a few rows.
    """

    def __init__(
        self,
        model: keras.Model,
        train: _Arrays,
        validation: _Arrays,
        batch_size: int,
        augment: Augmentation | None = None,
        files: GraphFiles | None = None,
        *,
        traced: bool = True,
    ) -> None:
        self._model = model
        self._augment = augment
        # What is traced now draws from it, also when Keras has made another one since.
        self._unnamed = global_seed_generator()
        _build(model, train, batch_size)
        graphs = _Graphs(files, model, self._generators(), traced=traced)
        with fused_updates(model):
            self._train = graphs.epoch("train", model.train_step, train, batch_size, augment)
        self._evaluate = _evaluation(graphs, validation, batch_size)

    def _generators(self) -> list[Any]:
        augment = self._augment.generators if self._augment else ()
        return [*seed_generators(self._model), self._unnamed, *augment]

    def seed(self, seed: int, epoch: int) -> None:
        """Sets every random number of an epoch, in the model and in front of it."""
        assign_seeds(self._generators(), seed, epoch)

    def train(self, order: NDArray[np.int32]) -> dict[str, float]:
        """Trains one epoch on the rows in `order`; the metrics at its end, by name."""
        self._model.reset_metrics()
        return _floats(self._train(tf.constant(order)))

    def evaluate(self) -> dict[str, float]:
        """The metrics over the validation part, their names with `val_` before them."""
        return {f"val_{name}": value for name, value in self._evaluate().items()}


def evaluate(model: keras.Model, rows: _Arrays, batch_size: int) -> dict[str, float]:
    """The metrics over `(x, y)`, as an EpochRunner finds them for the validation part."""
    _build(model, rows, batch_size)
    return _evaluation(_Graphs(None, model, ()), rows, batch_size)()


@contextlib.contextmanager
def forgotten_gradients() -> Iterator[None]:
    """Forgets the gradients that were registered inside: no trial leaves its graph behind.

    TensorFlow keeps what `tf.custom_gradient` registers in a graph, and with it the whole graph,
    for as long as the process lives. Every Keras optimizer comes by there, when it sums gradients
    over replicas: 5 MB a trial for a small model.
    """
    registered = gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith("CustomGradient-"):
                del registered[name]


def _build(model: keras.Model, rows: _Arrays, batch_size: int) -> None:
    """Makes the variables of loss, metrics and optimizer."""
    batch = keras.tree.map_structure(lambda array: tf.constant(array[:batch_size]), rows)
    output = _output_of(model)
    if output is not None and written_compilation(model) is not None:
        # Keras would find them out with graphs that it throws away, in five times the time.
        x, y, *weights = batch
        anything = tf.zeros([len(y), *output.shape[1:]], output.dtype)
        model.compute_metrics(x, y, anything, *weights)
        if model._compile_loss is not None:
            # Not `compute_loss`, which adds what a layer may have left of another graph.
            model._compile_loss(y, anything, *weights)
        model.reset_metrics()
    model._symbolic_build(data_batch=batch)


def _output_of(model: keras.Model) -> keras.KerasTensor | None:
    """The output of a model whose outputs are known before it is called; rows alone are open."""
    if type(model) not in (Functional, keras.Sequential) or not model.built:
        return None
    outputs = model.outputs
    if len(outputs) != 1 or None in outputs[0].shape[1:]:
        return None
    return outputs[0]


class _Graphs:
    """A model's epochs as graphs, from their files where there are any."""

    def __init__(
        self,
        files: GraphFiles | None,
        model: keras.Model,
        generators: Sequence[Any],
        *,
        traced: bool = True,
    ) -> None:
        self.model = model
        self._traced = traced
        self._files = files
        self._generators = generators

    def epoch(
        self,
        name: str,
        step: Callable[[Any], Any],
        arrays: _Arrays,
        batch_size: int,
        augment: Augmentation | None = None,
    ) -> _Epoch:
        """All batches of these arrays in one call, which takes the order of their rows."""
        tensors = keras.tree.map_structure(as_tensor, arrays)
        if not self._traced:
            return _one_batch(self.model, step, tensors)

        def trace() -> Any:
            return _traced_epoch(self.model, step, tensors, batch_size, augment)

        epoch = (
            trace() if self._files is None else self._files.graph(name, self._held(tensors), trace)
        )
        options = optimizer_options()

        def run(order: tf.Tensor) -> dict[str, tf.Tensor]:
            with calling_with(options):
                logs: dict[str, tf.Tensor] = epoch(order)
            return logs

        return run

    def _held(self, tensors: Any) -> list[Any]:
        """What a graph of Keras's own parts can read."""
        model = self.model
        states = [generator.state for generator in self._generators]
        variables = [*model.weights, *model.optimizer.variables, *model.metrics_variables, *states]
        return [*(variable.value.handle for variable in variables), *keras.tree.flatten(tensors)]


def _evaluation(graphs: _Graphs, rows: _Arrays, batch_size: int) -> Callable[[], dict[str, float]]:
    order = tf.range(len(rows[1]), dtype=tf.int32)
    model, batch = graphs.model, evaluation_batch(graphs.model, rows[0], batch_size)
    run = graphs.epoch("evaluate", model.test_step, rows, batch)

    def evaluate_all() -> dict[str, float]:
        model.reset_metrics()
        return _floats(run(order))

    return evaluate_all


def _traced_epoch(
    model: keras.Model,
    step: Callable[[Any], Any],
    tensors: Any,
    batch_size: int,
    augment: Augmentation | None,
) -> Any:
    rows = len(tensors[1])
    steps = math.ceil(rows / batch_size)
    if steps == 1 and augment is None and not model.jit_compile:
        return _traced(_one_batch(model, step, tensors), tf.TensorSpec([rows], tf.int32))
    # A function of its own, so that the loop knows what a step returns before it runs one.
    traced = _step_function(model, step, tensors, augment)

    def all_batches(order: tf.Tensor) -> dict[str, tf.Tensor]:
        def at(index: tf.Tensor) -> dict[str, tf.Tensor]:
            start = index * batch_size
            logs: dict[str, tf.Tensor] = traced(order[start : tf.minimum(start + batch_size, rows)])
            return logs

        outputs = traced.structured_outputs
        no_logs = {name: tf.zeros([], log.dtype) for name, log in outputs.items()}
        _, logs = tf.while_loop(
            lambda index, _: index < steps,
            lambda index, _: (index + 1, at(index)),
            (tf.constant(0), no_logs),
            # Steps depend on each other through the weights; running ahead only costs memory.
            parallel_iterations=1,
        )
        # As in `fit`: a step's own logs stand only where they are not the model's metrics.
        return _numbers(model._get_metrics_result_or_logs(logs))

    return _traced(all_batches, tf.TensorSpec([rows], tf.int32))


def _step_function(
    model: keras.Model, step: Callable[[Any], Any], tensors: Any, augment: Augmentation | None
) -> Any:
    """A step on the rows of these numbers, compiled by XLA where the model lets it."""
    numbers = tf.TensorSpec([None], tf.int32)
    if augment is None:
        return _traced(
            lambda chosen: _numbers(step(_batch_of(tensors, chosen))),
            numbers,
            jit=model.jit_compile,
        )
    # XLA can't turn a picture, so what it compiles begins behind the augmentation.
    batch = keras.tree.map_structure(
        lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), tensors
    )
    compiled = _traced(lambda batch: _numbers(step(batch)), batch, jit=model.jit_compile)

    def one_changed_batch(chosen: tf.Tensor) -> dict[str, tf.Tensor]:
        x, *others = _batch_of(tensors, chosen)
        logs: dict[str, tf.Tensor] = compiled((augment(x), *others))
        return logs

    return _traced(one_changed_batch, numbers)


def _one_batch(model: keras.Model, step: Callable[[Any], Any], tensors: Any) -> _Epoch:
    """An epoch that is one step."""
    return lambda order: _numbers(
        model._get_metrics_result_or_logs(_numbers(step(_batch_of(tensors, order))))
    )


def _batch_of(tensors: Any, chosen: tf.Tensor) -> Any:
    return keras.tree.map_structure(lambda tensor: tf.gather(tensor, chosen), tensors)


def _traced(function: Callable[[Any], Any], argument: Any, *, jit: bool = False) -> Any:
    return tf.function(
        function, input_signature=[argument], autograph=False, jit_compile=jit or None
    ).get_concrete_function()


def _numbers(logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The logs that are single numbers; logs within logs are taken out, as `fit` does."""
    found: dict[str, tf.Tensor] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            found |= _numbers(value)
            continue
        tensor = tf.convert_to_tensor(value)
        if tensor.shape.num_elements() == 1:
            found[name] = tf.reshape(tensor, [])
    return found


def _floats(logs: dict[str, tf.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}
