"""A KerasTuner HyperModel as it is: it compiles its model, and its `fit` tunes the batch size."""

import keras
import keras_tuner


class Digits(keras_tuner.HyperModel):
    """Dense layers for 8 by 8 pictures of digits."""

    def build(self, hp):
        model = keras.Sequential([keras.Input((64,))])
        for i in range(hp.Int("layers", 1, 3)):
            units = hp.Int(f"units_{i}", min_value=32, max_value=128, step=32)
            model.add(keras.layers.Dense(units, activation="relu"))
        if hp.Boolean("dropout"):
            model.add(keras.layers.Dropout(0.25))
        model.add(keras.layers.Dense(10, activation="softmax"))
        model.compile(
            optimizer=keras.optimizers.Adam(hp.Float("lr", 1e-4, 1e-2, sampling="log")),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=hp.Choice("batch_size", [32, 64]), **kwargs)
