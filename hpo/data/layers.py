"""The preparation of the data as Keras layers. The only module of this room that needs Keras."""

from __future__ import annotations

import keras

from hpo.data.preprocessing import FittedPreprocessing


def preprocessing_layers(fitted: FittedPreprocessing) -> list[keras.layers.Layer]:
    """Stock layers that turn raw samples (rows, *raw_shape) into what `fitted.apply` returns.

    A model that begins with them takes raw features and loads with Keras alone, in safe mode. The
    list is empty when nothing is done to the features. The layers compute in float32 whatever the
    dtype policy of the model is.
    """
    layers: list[keras.layers.Layer] = []
    if fitted.reshape is not None:
        layers.append(keras.layers.Reshape(fitted.reshape, dtype="float32"))
    if fitted.scale:
        # Subtract first, in a layer of its own: one Rescaling would multiply first and lose the
        # digits of a feature whose mean is far larger than its spread. Normalization would
        # subtract first too, but it takes no spread below 1e-7.
        shift = [-value for value in fitted.offset]
        layers.append(keras.layers.Rescaling(1.0, shift, dtype="float32"))
        layers.append(keras.layers.Rescaling(list(fitted.scale), dtype="float32"))
    return layers
