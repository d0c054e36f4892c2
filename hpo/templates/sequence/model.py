"""The model that is tuned: a recurrent network. Change it as you like."""

import keras

HEAD = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}


def build(hp, input_shape, num_outputs, task, mask_value):
    """`hp` has the hyperparameters; the other arguments say what the data is.

    Steps after the end of a series hold `mask_value`; it is None when all have one length.
    """
    x = inputs = keras.Input(input_shape)
    if mask_value is not None:
        x = keras.layers.Masking(mask_value)(x)
    kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[hp.Choice("kind", ["lstm", "gru"])]
    depth = hp.Int("depth", 1, 2)
    for i in range(depth):
        x = kind(hp.Int(f"units_{i}", 8, 64, sampling="log"), return_sequences=i < depth - 1)(x)
    x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5))(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, activation=HEAD[task])(x))
