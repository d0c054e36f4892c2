"""A multilayer perceptron for tables; pictures and sequences are flattened."""

from __future__ import annotations

import keras
import keras_tuner

HEAD = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}


class MLP(keras_tuner.HyperModel):
    """Dense blocks: linear, batch normalization, activation, dropout.

    `input_shape` is the shape of one sample, `num_outputs` the number of units of the head, `task`
    one of binary, multiclass, multilabel and regression. The model comes back uncompiled.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, task: str) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_outputs = num_outputs
        self.task = task

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        activation = hp.Choice("activation", ["relu", "gelu", "tanh"])
        dropout = hp.Float("dropout", 0.0, 0.5)
        batchnorm = hp.Boolean("batchnorm")
        l2 = hp.Float("l2", 1e-7, 1e-2, sampling="log")

        inputs = keras.Input(self.input_shape)
        x = keras.layers.Flatten()(inputs) if len(self.input_shape) > 1 else inputs
        for i in range(hp.Int("depth", 1, 6)):
            units = hp.Int(f"units_{i}", 16, 512, sampling="log")
            # Batch normalization brings its own bias.
            x = keras.layers.Dense(
                units, use_bias=not batchnorm, kernel_regularizer=keras.regularizers.L2(l2)
            )(x)
            if batchnorm:
                x = keras.layers.BatchNormalization()(x)
            x = keras.layers.Activation(activation)(x)
            x = keras.layers.Dropout(dropout)(x)
        outputs = keras.layers.Dense(self.num_outputs, activation=HEAD[self.task])(x)
        return keras.Model(inputs, outputs)
