"""A small convolutional network for pictures."""

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
    hp: keras_tuner.HyperParameters, input_shape: tuple[int, ...], num_outputs: int, task: str
) -> keras.Model:
    """Blocks of convolution and pooling, then one dense layer.

    `input_shape` is (height, width, channels). Every block halves the picture, so a small picture
    gets fewer blocks. The model comes back uncompiled.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"expected samples of shape (height, width, channels), received {input_shape}; "
            "set data.preprocess.reshape in the study file"
        )
    activation = hp.Choice("activation", ["relu", "gelu", "tanh"])
    dropout = hp.Float("dropout", 0.0, 0.5)
    batchnorm = hp.Boolean("batchnorm")
    kernel_size = hp.Choice("kernel_size", [3, 5])
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-7, 1e-2, sampling="log"))

    x = inputs = keras.Input(input_shape)
    for i in range(hp.Int("depth", 1, deepest(input_shape))):
        filters = hp.Int(f"filters_{i}", 8, 128, sampling="log")
        # Batch normalization brings its own bias.
        x = keras.layers.Conv2D(
            filters, kernel_size, padding="same", use_bias=not batchnorm, kernel_regularizer=l2
        )(x)
        if batchnorm:
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation(activation)(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Flatten()(x)
    units = hp.Int("units", 16, 256, sampling="log")
    x = keras.layers.Dense(units, activation=activation, kernel_regularizer=l2)(x)
    x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(num_outputs, activation=HEAD[task])(x)
    return keras.Model(inputs, outputs)


def deepest(input_shape: tuple[int, ...], most: int = 4) -> int:
    """The number of blocks that leaves a picture of at least 2 by 2."""
    halvings = min(input_shape[:2]).bit_length() - 2
    return max(1, min(most, halvings))
