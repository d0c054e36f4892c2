"""A pretrained body of keras.applications with a new head: the head first, then the last layers."""

from __future__ import annotations

import keras
import keras_tuner

HEAD = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}


class FineTune(keras_tuner.HyperModel):
    """Trains the head for `head_epochs`, then also the last `unfreeze` layers, at a lower rate.

    `input_shape` is (height, width, 1 or 3), pixels from 0 to 255. `body` is a name in
    keras.applications, `weights` the file with its weights (without the top; None: random ones),
    `image_size` the side that pictures are resized to. The model comes back uncompiled.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_outputs: int,
        task: str,
        body: str = "MobileNetV2",
        weights: str | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or input_shape[2] not in (1, 3):
            raise ValueError(
                f"expected samples of shape (height, width, 1 or 3), received {input_shape}; "
                "set data.preprocess.reshape in the study file"
            )
        self.input_shape, self.num_outputs, self.task = input_shape, num_outputs, task
        self.body, self.weights, self.image_size = body, weights, image_size

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        x = inputs = keras.Input(self.input_shape)
        if self.input_shape[2] == 1:
            x = keras.layers.Concatenate()([x, x, x])
        if self.image_size:
            x = keras.layers.Resizing(self.image_size, self.image_size)(x)
        # Some bodies scale pixels themselves, the others have a function for it beside them.
        home = next((m for m in vars(keras.applications).values() if hasattr(m, self.body)), None)
        x = home.preprocess_input(x) if home else x
        body = getattr(keras.applications, self.body)(
            include_top=False,
            weights=self.weights,
            input_shape=x.shape[1:],
            pooling=hp.Choice("pooling", ["avg", "max"]),
            name="body",
        )
        body.trainable = False
        # Asked for here and not in `fit`: a search learns its parameters from `build`.
        hp.Int("unfreeze", 0, len(weighted(body)))
        hp.Int("head_epochs", 1, 10)
        hp.Float("unfreeze_rate", 0.01, 1.0, sampling="log", default=0.1)

        # Batch normalization keeps the statistics that it came with, also when it is trained.
        x = body(x, training=False)
        units = hp.Int("units", 0, 256, step=32)
        x = keras.layers.Dense(units, activation="relu")(x) if units else x
        x = keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5))(x)
        outputs = keras.layers.Dense(self.num_outputs, activation=HEAD[self.task])(x)
        return keras.Model(inputs, outputs)

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: object,
        epochs: int = 1,
        initial_epoch: int = 0,
        callbacks: list[keras.callbacks.Callback] | None = None,
        **kwargs: object,
    ) -> keras.callbacks.History:
        """The history of both phases. A callback that stops the first one stops the training."""
        history = keras.callbacks.History()
        kwargs["callbacks"] = [*(callbacks or []), history]
        switch = min(hp.get("head_epochs"), epochs) if hp.get("unfreeze") else epochs
        if initial_epoch < switch:
            model.fit(*args, initial_epoch=initial_epoch, epochs=switch, **kwargs)
        if switch < epochs and not model.stop_training:
            thaw(model, hp.get("unfreeze"), hp.get("unfreeze_rate"))
            model.fit(*args, initial_epoch=max(initial_epoch, switch), epochs=epochs, **kwargs)
        return history


def thaw(model: keras.Model, last: int, rate: float) -> None:
    """Lets the last layers of the body train, and compiles anew at `rate` times the rate."""
    body = model.get_layer("body")
    body.trainable = True
    for layer in weighted(body)[: -last or None]:
        layer.trainable = False
    config = model.get_compile_config()
    config["optimizer"]["config"]["learning_rate"] = float(model.optimizer.learning_rate) * rate
    model.compile_from_config(config)


def weighted(body: keras.Model) -> list[keras.Layer]:
    """The layers with weights: those that count when the last ones are trained."""
    return [layer for layer in body.layers if layer.weights]
