"""Embeddings and dense blocks for tables."""

from __future__ import annotations

import math

import keras
import keras_tuner

HEAD = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}


def build(
    hp: keras_tuner.HyperParameters,
    input_shape: tuple[int, ...] | dict[str, tuple[int, ...]],
    num_outputs: int,
    task: str,
    vocabulary_sizes: dict[str, int] | None = None,
    target_mean: tuple[float, ...] | None = None,
    target_std: tuple[float, ...] | None = None,
) -> keras.Model:
    """Dense blocks on the numeric columns beside an embedding of each categorical one.

    `input_shape` is {"numeric": (d,), column: ()}, a column holding one integer below
    `vocabulary_sizes[column]` a row, and the model's inputs are a dict of these names; or it is
    (d,) when all columns are numbers already. For regression the head begins at the targets' mean
    and spread, so that it need not learn their unit. The model comes back uncompiled.
    """
    shapes = input_shape if isinstance(input_shape, dict) else {"numeric": input_shape}
    inputs = {
        name: keras.Input(shape, name=name, dtype=None if shape else "int32")
        for name, shape in shapes.items()
    }
    x = joined(hp, inputs, vocabulary_sizes or {})
    activation = hp.Choice("activation", ["relu", "gelu", "silu"])
    normalization = hp.Choice("normalization", ["none", "batch", "layer"])
    initializer = hp.Choice("initializer", ["glorot_uniform", "he_normal"])
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-7, 1e-2, sampling="log"))
    residual = hp.Boolean("residual")
    dropout = hp.Float("dropout", 0.0, 0.5)
    units = hp.Int("units", 16, 512, sampling="log")
    for i in range(hp.Int("depth", 1, 6)):
        block = keras.layers.Dense(units, kernel_initializer=initializer, kernel_regularizer=l2)(x)
        if normalization == "batch":
            block = keras.layers.BatchNormalization()(block)
        elif normalization == "layer":
            block = keras.layers.LayerNormalization()(block)
        block = keras.layers.Activation(activation)(block)
        block = keras.layers.Dropout(dropout)(block)
        # The first block only brings the columns to the width of the others.
        x = keras.layers.Add()([x, block]) if residual and i else block
    outputs = keras.layers.Dense(num_outputs, activation=HEAD[task])(x)
    if target_mean and target_std:
        outputs = keras.layers.Rescaling(list(target_std), list(target_mean))(outputs)
    return keras.Model(inputs if isinstance(input_shape, dict) else inputs["numeric"], outputs)


def joined(
    hp: keras_tuner.HyperParameters, inputs: dict[str, keras.KerasTensor], sizes: dict[str, int]
) -> keras.KerasTensor:
    """One vector a row; a column of n codes takes n ** `embedding_power` numbers, at most 64."""
    for name, column in inputs.items():
        if len(column.shape) > 2 or (len(column.shape) == 1 and name not in sizes):
            raise ValueError(
                "expected samples of shape (columns,), or () with an entry in vocabulary_sizes; "
                f"received {column.shape[1:]} for {name!r}; vocabulary_sizes: {sizes}"
            )
    parts = [column for column in inputs.values() if len(column.shape) == 2]
    codes = {name: column for name, column in inputs.items() if len(column.shape) == 1}
    if codes:
        power = hp.Float("embedding_power", 0.25, 0.75)
        dropout = keras.layers.Dropout(hp.Float("embedding_dropout", 0.0, 0.5))
    for name, column in codes.items():
        width = min(64, math.ceil(sizes[name] ** power))
        parts.append(dropout(keras.layers.Embedding(sizes[name], width)(column)))
    return keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
