"""The model that is tuned: a small convolutional network. Change it as you like."""

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
        x = keras.layers.Conv2D(hp.Int(f"filters_{i}", 8, 64, sampling="log"), 3, padding="same")(x)
        if hp.Boolean("batchnorm"):
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Activation("relu")(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5))(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, activation=HEAD[task])(x))
