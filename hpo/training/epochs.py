"""One epoch in one graph call.

`model.fit` comes back to Python for every batch, which costs more than the batch itself when a
model is small. Here the data lies on the device, and one `tf.function` loops over
`model.train_step`, so losses, metrics and a custom `train_step` mean the same as in Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_Epoch = Callable[[Any], dict[str, Any]]

# Large enough that a validation part mostly is one batch, small enough for any device.
_EVALUATION_BATCH = 2048


class EpochRunner:
    """Trains and evaluates a compiled model on data that fits in memory.

    Args:
        model: Compiled; its optimizer and metrics are built here, so that tracing happens once.
        train: `(x, y)` or `(x, y, sample_weight)`, arrays with a first axis of rows.
        validation: `(x, y)`.
        batch_size: Rows a step; the last step of an epoch takes what is left.
    """

    def __init__(
        self,
        model: keras.Model,
        train: tuple[NDArray[Any], ...],
        validation: tuple[NDArray[Any], ...],
        batch_size: int,
    ) -> None:
        self._model = model
        self._rows = len(train[0])
        self._validation_order = np.arange(len(validation[0]), dtype=np.int32)
        _build(model, train, min(batch_size, self._rows))
        self._train = _epoch_function(model.train_step, train, batch_size, model.jit_compile)
        self._evaluate = _epoch_function(
            model.test_step, validation, _EVALUATION_BATCH, model.jit_compile
        )

    def train(self, order: NDArray[np.int32]) -> dict[str, float]:
        """Trains one epoch on the rows in `order`; the metrics at its end, by name."""
        self._model.reset_metrics()
        return _floats(self._train(tf.constant(order)))

    def evaluate(self) -> dict[str, float]:
        """The metrics over the validation part, their names with `val_` before them."""
        self._model.reset_metrics()
        logs = _floats(self._evaluate(tf.constant(self._validation_order)))
        return {f"val_{name}": value for name, value in logs.items()}


def epoch_order(seed: int, epoch: int, rows: int) -> NDArray[np.int32]:
    """The order of rows in an epoch: it depends on the trial's seed and the epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int32)


def seed_epoch(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets every random layer (dropout, noise, ...) for one epoch.

    A trial that another worker takes over at this epoch then draws the same numbers.
    """
    for index, generator in enumerate(_seed_generators(model)):
        state = np.random.SeedSequence([seed, epoch, index]).generate_state(2)
        generator.state.assign(state.astype(generator.state.dtype))


def _seed_generators(model: keras.Model) -> list[Any]:
    found: dict[int, Any] = {}
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            found[id(generator)] = generator
    return list(found.values())


def _build(model: keras.Model, train: tuple[NDArray[Any], ...], batch_size: int) -> None:
    batch = tuple(tf.constant(array[:batch_size]) for array in train)
    model._symbolic_build(data_batch=batch)


def _epoch_function(
    step: Callable[[Any], dict[str, Any]],
    arrays: tuple[NDArray[Any], ...],
    batch_size: int,
    jit_compile: bool,
) -> _Epoch:
    rows = len(arrays[0])
    steps = math.ceil(rows / batch_size)
    tensors = [tf.constant(array) for array in arrays]

    def one_batch(chosen: tf.Tensor) -> Any:
        return step(tuple(tf.gather(tensor, chosen) for tensor in tensors))

    # A function of its own, so that the loop knows what a step returns before it runs one.
    traced = tf.function(
        one_batch,
        input_signature=[tf.TensorSpec([None], tf.int32)],
        autograph=False,
        jit_compile=jit_compile or None,
    ).get_concrete_function()

    def all_batches(order: tf.Tensor) -> Any:
        def at(index: tf.Tensor) -> Any:
            start = index * batch_size
            return traced(order[start : tf.minimum(start + batch_size, rows)])

        no_logs = {
            name: tf.zeros(log.shape, log.dtype) for name, log in traced.structured_outputs.items()
        }
        _, logs = tf.while_loop(
            lambda index, _: index < steps,
            lambda index, _: (index + 1, at(index)),
            (tf.constant(0), no_logs),
            # Steps depend on each other through the weights; running ahead only costs memory.
            parallel_iterations=1,
        )
        return logs

    signature = [tf.TensorSpec([rows], tf.int32)]
    epoch: _Epoch = tf.function(all_batches, input_signature=signature, autograph=False)
    return epoch


def _floats(logs: dict[str, tf.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}
