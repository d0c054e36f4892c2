"""How many rows an evaluation takes at once.

`fit` and `evaluate` of Keras take as many as training does. More at once are several times faster
for a small model, and as long as each row counts by itself the figures are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.models.functional import Functional

from hpo.training.compiling import loss_of, only_loss
from hpo.training.plain import has_plain_layers, written_compilation

_losses = keras.losses
# The rest of Keras's, such as Dice and Circle, compare rows with each other.
_OF_EACH_ROW = (
    _losses.binary_crossentropy,
    _losses.binary_focal_crossentropy,
    _losses.categorical_crossentropy,
    _losses.categorical_focal_crossentropy,
    _losses.categorical_hinge,
    _losses.hinge,
    _losses.huber,
    _losses.kl_divergence,
    _losses.log_cosh,
    _losses.mean_absolute_error,
    _losses.mean_absolute_percentage_error,
    _losses.mean_squared_error,
    _losses.mean_squared_logarithmic_error,
    _losses.poisson,
    _losses.sparse_categorical_crossentropy,
    _losses.squared_hinge,
)
_MEANS = ("mean", "mean_with_sample_weight", "sum_over_batch_size")
_layers = keras.layers
_ATTENTION = (
    _layers.AdditiveAttention,
    _layers.Attention,
    _layers.GroupQueryAttention,
    _layers.MultiHeadAttention,
)

_MOST_ROWS = 2048
# Of the largest tensor in the model: 16 MB of float32.
_MOST_NUMBERS = 2**22


def evaluation_batch(model: keras.Model, x: Any, batch_size: int) -> int:
    """The rows of a batch: at least `batch_size`, and that where more could make a difference.

    Args:
        model: Compiled.
        x: Features, an array with a first axis of rows or several by name.
    """
    if not _rows_count_alone(model):
        return batch_size
    return max(batch_size, min(_MOST_ROWS, _MOST_NUMBERS // _numbers_of_a_row(model, x)))


def _rows_count_alone(model: keras.Model) -> bool:
    """Whether loss and metrics of all rows are the mean of what small batches have."""
    if not has_plain_layers(model) or written_compilation(model) is None:
        return False
    if not all(map(_takes_each_row, model._flatten_layers())):
        return False
    return loss_of(model) in _OF_EACH_ROW and (
        getattr(only_loss(model), "reduction", "mean") in _MEANS
    )


def _takes_each_row(layer: Any) -> bool:
    """Whether nothing in one of Keras's layers looks beyond a row of its batch."""
    if layer.activity_regularizer is not None or isinstance(layer, _layers.Lambda):
        # Of an activity Keras takes the sum over a batch; a lambda may be any function of Keras's.
        return False
    if getattr(layer, "stateful", False):
        return False
    # Those of a functional model may be no layers: a mean of all rows, for one.
    parts = getattr(layer, "operations", [])
    axes = keras.tree.flatten(getattr(layer, "axis", -1))
    return all(isinstance(part, keras.Layer) for part in parts) and all(map(_is_inner, axes))


def _is_inner(axis: Any) -> bool:
    """Whether it is certain not to be the rows': counted from behind, any but the last may be."""
    return isinstance(axis, int) and (axis > 0 or axis == -1)


def _numbers_of_a_row(model: Any, x: Any) -> int:
    """Of a row's largest tensor, leaving out vectors: no layer is as wide as memory is large."""
    features = keras.tree.flatten(x)
    # What is open in the model, the length of its sequences, the data says.
    longest = max((length for array in features for length in array.shape[1:]), default=1)
    inner = [_numbers(shape, longest) for shape in _shapes(model, longest) if len(shape) > 2]
    given: list[int] = [math.prod(array.shape[1:]) for array in features]
    return max(1, *inner, *given)


def _shapes(model: Any, longest: int) -> Iterator[tuple[int | None, ...]]:
    """Of all tensors in a functional or sequential model, and of the scores of attention."""
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, Functional | keras.Sequential):
            yield from _shapes(operation, longest)
        for node in operation._inbound_nodes:
            outputs = [tensor.shape for tensor in node.output_tensors]
            yield from outputs
            if isinstance(operation, _ATTENTION):
                yield _scores(operation, [tensor.shape for tensor in node.input_tensors], longest)


def _scores(
    layer: Any, inputs: list[tuple[int | None, ...]], longest: int
) -> tuple[int | None, ...]:
    """A number for each pair of positions, in each head; of additive attention a vector each."""
    positions = [_numbers(shape[:-1], longest) for shape in inputs]
    each = getattr(layer, "num_heads", getattr(layer, "num_query_heads", 1))
    if isinstance(layer, _layers.AdditiveAttention):
        each = inputs[0][-1]
    return (None, each, positions[0], max(positions))


def _numbers(shape: tuple[int | None, ...], longest: int) -> int:
    return math.prod(longest if length is None else length for length in shape[1:])
