"""A small residual network for pictures."""

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
    """Stages of residual blocks; each stage but the first halves the picture and doubles filters.

    Blocks are pre-activated (He et al. 2016, https://arxiv.org/abs/1603.05027), and `drop_path`
    skips them at random while training (Huang et al. 2016, https://arxiv.org/abs/1603.09382).
    `input_shape` is (height, width, channels). The model comes back uncompiled.
    """
    if len(input_shape) != 3 or None in input_shape:
        raise ValueError(
            f"expected samples of one shape (height, width, channels), received {input_shape}; "
            "set data.preprocess.reshape in the study file, or read the pictures in one size"
        )
    activation = hp.Choice("activation", ["relu", "gelu", "silu"])
    batchnorm = hp.Boolean("batchnorm", default=True)
    initializer = hp.Choice("initializer", ["he_normal", "glorot_uniform"])
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-7, 1e-2, sampling="log"))
    filters = hp.Int("filters", 8, 64, sampling="log")
    blocks = hp.Int("blocks", 1, 3)
    drop_path = hp.Float("drop_path", 0.0, 0.3)

    def convolved(
        x: keras.KerasTensor, filters: int, size: int = 3, strides: int = 1
    ) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            use_bias=not batchnorm,
            kernel_initializer=initializer,
            kernel_regularizer=l2,
        )(x)

    def activated(x: keras.KerasTensor) -> keras.KerasTensor:
        x = keras.layers.BatchNormalization()(x) if batchnorm else x
        return keras.layers.Activation(activation)(x)

    inputs = keras.Input(input_shape)
    x = convolved(inputs, filters, strides=2 if min(input_shape[:2]) > 64 else 1)
    for stage in range(hp.Int("stages", 1, most_stages(input_shape))):
        for block in range(blocks):
            width, strides = filters * 2**stage, 2 if stage and not block else 1
            branch = convolved(activated(x), width, strides=strides)
            branch = convolved(activated(branch), width)
            # One draw a picture: the whole branch or none of it.
            branch = keras.layers.Dropout(drop_path, noise_shape=(None, 1, 1, 1))(branch)
            x = x if x.shape == branch.shape else convolved(x, width, 1, strides)
            x = keras.layers.Add()([x, branch])
    x = keras.layers.GlobalAveragePooling2D()(activated(x))
    x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5))(x)
    outputs = keras.layers.Dense(num_outputs, activation=HEAD[task])(x)
    return keras.Model(inputs, outputs)


def most_stages(input_shape: tuple[int, ...], most: int = 4) -> int:
    """The number of stages that leaves a picture of at least 2 by 2."""
    return max(1, min(most, min(input_shape[:2]).bit_length() - 1))
