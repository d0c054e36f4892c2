"""The model that is tuned: dense layers for a table. Change it as you like."""

import keras

HEAD = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}


def build(hp, input_shape, num_outputs, task):
    """`hp` has the hyperparameters; the other arguments say what the data is."""
    x = inputs = keras.Input(input_shape)
    for i in range(hp.Int("depth", 1, 3)):
        x = keras.layers.Dense(hp.Int(f"units_{i}", 16, 128, sampling="log"))(x)
        if hp.Boolean("batchnorm"):
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation(hp.Choice("activation", ["relu", "gelu"]))(x)
        x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5))(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, activation=HEAD[task])(x))
