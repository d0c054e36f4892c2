"""The preparation of the data as Keras layers, for a model that takes raw input. Needs Keras."""

from __future__ import annotations

from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from hpo.data.features import Features, map_arrays
from hpo.data.preprocessing import FittedInputs, FittedPreprocessing, Preparation


def raw_inputs(fitted: Preparation) -> tuple[Any, Any]:
    """Inputs of raw rows, and what they are as the model sees them: `fitted.apply` in layers.

    A model that begins with them takes raw features and loads with Keras alone, in safe mode.
    """
    if isinstance(fitted, FittedInputs):
        inputs = {
            plain_name(name): keras.Input(f.raw_shape, name=plain_name(name))
            for name, f in fitted.inputs.items()
        }
        ready = {name: prepared(f, inputs[plain_name(name)]) for name, f in fitted.inputs.items()}
        return inputs, ready
    if isinstance(fitted, FittedPreprocessing):
        single = keras.Input(fitted.raw_shape, name="raw_input")
        return single, prepared(fitted, single)
    # What a table goes through is made of layers from the start.
    model: keras.Model = cast("Any", fitted).model
    columns = keras.tree.map_structure(
        lambda each: keras.Input(each.shape[1:], name=each.name, dtype=each.dtype), model.input
    )
    return columns, model(columns)


def plain_name(name: str) -> str:
    """The name of a column as the input of a model: Keras takes no slash there."""
    return name.replace("/", "_")


def raw_batches(x: Features, size: int = 256) -> Any:
    """Raw rows as batches for a model that takes them; columns of a table as (rows, 1)."""
    if isinstance(x, dict):
        x = {plain_name(name): array for name, array in x.items()}
    columns = map_arrays(lambda array: array.reshape(-1, 1) if array.ndim == 1 else array, x)
    return tf.data.Dataset.from_tensor_slices(columns).batch(size)


def prepared(fitted: FittedPreprocessing, x: Any) -> Any:
    """A Keras tensor of raw samples (rows, *raw_shape) as `fitted.apply` returns them.

    Stock layers that compute in float32 whatever the dtype policy of the model is.
    """
    steps = None if fitted.mask_value is None else _steps(x)
    if fitted.reshape is not None:
        x = keras.layers.Reshape(fitted.reshape, dtype="float32")(x)
    if fitted.fill:
        x = keras.ops.where(keras.ops.isnan(x), np.asarray(fitted.fill, np.float32), x)
    if fitted.scale:
        # Subtract first, in a layer of its own: one Rescaling would multiply first and lose the
        # digits of a feature whose mean is far larger than its spread. Normalization would
        # subtract first too, but it takes no spread below 1e-7.
        shift = [-value for value in fitted.offset]
        x = keras.layers.Rescaling(1.0, shift, dtype="float32")(x)
        x = keras.layers.Rescaling(list(fitted.scale), dtype="float32")(x)
    if steps is not None:
        x = keras.ops.where(steps, x, np.asarray(fitted.mask_value, np.float32))
    return x


def _steps(x: Any) -> Any:
    """Where (rows, steps, 1) a sequence has steps: up to the last one that holds a number."""
    numbers = keras.ops.any(keras.ops.logical_not(keras.ops.isnan(x)), axis=-1, keepdims=True)
    backwards = keras.ops.flip(keras.ops.cast(numbers, "int32"), axis=1)
    return keras.ops.flip(keras.ops.cumsum(backwards, axis=1), axis=1) > 0
