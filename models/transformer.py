"""A small transformer encoder for sequences."""

from __future__ import annotations

import keras
import keras_tuner
from keras import layers, ops

HEAD = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}


def build(
    hp: keras_tuner.HyperParameters,
    input_shape: tuple[int | None, ...],
    num_outputs: int,
    task: str,
    mask_value: float | None = None,
) -> keras.Model:
    """Blocks of attention and dense layers, then the average over time and the head.

    Layer normalization stands before each part of a block (https://arxiv.org/abs/2002.04745).
    Positions are sinusoids, so that any length will do. `input_shape` is (time, features), time
    None for any length. Steps that hold `mask_value` in every feature are padding: they are neither
    counted, attended to nor averaged. The model comes back uncompiled.
    """
    if len(input_shape) != 2 or input_shape[1] is None:
        raise ValueError(
            f"expected samples of shape (time, features), received {input_shape}; "
            "set data.preprocess.reshape in the study file"
        )
    width = hp.Int("width", 16, 128, step=16)
    heads = hp.Choice("heads", [1, 2, 4, 8])
    feedforward = hp.Int("feedforward", 1, 4)
    activation = hp.Choice("activation", ["relu", "gelu", "silu"])
    dropout = hp.Float("dropout", 0.0, 0.5)
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-7, 1e-2, sampling="log"))

    inputs = keras.Input(input_shape)
    real = ops.ones_like(inputs[:, :, :1])
    if mask_value is not None:
        real *= ops.cast(ops.any(inputs != mask_value, axis=-1, keepdims=True), "float32")
    mask = None if mask_value is None else ops.swapaxes(real, 1, 2) > 0

    frequencies = 10_000.0 ** (-ops.arange(0, width, 2, dtype="float32") / width)
    angles = ops.cumsum(real, axis=1) * frequencies
    x = layers.Dense(width, kernel_regularizer=l2)(inputs)
    x = layers.Dropout(dropout)(x + ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1))
    for _ in range(hp.Int("depth", 1, 4)):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(
            heads, width // heads, dropout=dropout, kernel_regularizer=l2
        )(y, y, attention_mask=mask)
        x = x + layers.Dropout(dropout)(y)
        y = layers.LayerNormalization()(x)
        y = layers.Dense(feedforward * width, activation=activation, kernel_regularizer=l2)(y)
        y = layers.Dense(width, kernel_regularizer=l2)(y)
        x = x + layers.Dropout(dropout)(y)
    x = layers.LayerNormalization()(x)
    # Not GlobalAveragePooling1D: its average over a sequence without a real step is NaN.
    x = ops.sum(x * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0)
    outputs = layers.Dense(num_outputs, activation=HEAD[task])(x)
    return keras.Model(inputs, outputs)
