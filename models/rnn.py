"""A recurrent network for sequences."""

from __future__ import annotations

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
    input_shape: tuple[int | None, ...],
    num_outputs: int,
    task: str,
    mask_value: float | None = None,
) -> keras.Model:
    """Layers of LSTM or GRU; the last state of the last layer goes into the head.

    `input_shape` is (time, features), time None for any length. Steps that hold `mask_value` in
    every feature are padding and passed over. The model comes back uncompiled.
    """
    if len(input_shape) != 2 or input_shape[1] is None:
        raise ValueError(
            f"expected samples of shape (time, features), received {input_shape}; "
            "set data.preprocess.reshape in the study file"
        )
    cell = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[hp.Choice("cell", ["lstm", "gru"])]
    bidirectional = hp.Boolean("bidirectional")
    layernorm = hp.Boolean("layernorm")
    dropout = hp.Float("dropout", 0.0, 0.5)
    # In steps, so that it can be exactly zero: a GPU's fast kernel has no recurrent dropout.
    recurrent_dropout = hp.Float("recurrent_dropout", 0.0, 0.5, step=0.1)
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-7, 1e-2, sampling="log"))
    depth = hp.Int("depth", 1, 3)

    x = inputs = keras.Input(input_shape)
    if mask_value is not None:
        x = keras.layers.Masking(mask_value)(x)
    for i in range(depth):
        layer = cell(
            hp.Int(f"units_{i}", 8, 128, sampling="log"),
            return_sequences=i < depth - 1,
            recurrent_dropout=recurrent_dropout,
            kernel_regularizer=l2,
        )
        x = keras.layers.Bidirectional(layer)(x) if bidirectional else layer(x)
        if layernorm:
            x = keras.layers.LayerNormalization()(x)
        x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(num_outputs, activation=HEAD[task])(x)
    return keras.Model(inputs, outputs)
