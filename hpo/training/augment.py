"""Augmentation: other random changes of the training rows in every epoch. Needs Keras.

It stands between the data and `train_step`, outside of the model: evaluation never sees it, and an
exported model does not have it. It works on prepared features. A picture that is normalized by
channel turns, zooms and gains contrast like a raw one, because what comes in at an edge is the
nearest pixel, and contrast is about the picture's own mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import keras

from hpo.data.checks import named_arrays
from hpo.data.features import Array, Features
from hpo.spec import StudySpec
from hpo.spec.models import Augment
from hpo.training.compiling import SettingError

_NOTHING = Augment()
# Seeded for each epoch; a seed here keeps the layers from drawing one from the global generator.
_LAYER: dict[str, Any] = {"seed": 0, "dtype": "float32"}
_MOVED: dict[str, Any] = {"fill_mode": "nearest", "data_format": "channels_last", **_LAYER}
_FLIPS = {"both": "horizontal_and_vertical"}

_OF_PICTURES: dict[str, Callable[[Any], keras.Layer]] = {
    "flip": lambda mode: keras.layers.RandomFlip(
        _FLIPS.get(mode, mode), data_format="channels_last", **_LAYER
    ),
    "rotation": lambda turn: keras.layers.RandomRotation(turn, **_MOVED),
    "zoom": lambda factor: keras.layers.RandomZoom(factor, **_MOVED),
    "translation": lambda share: keras.layers.RandomTranslation(share, share, **_MOVED),
    # Prepared pixels have no range to be kept in.
    "contrast": lambda factor: keras.layers.RandomContrast(
        factor, value_range=(-math.inf, math.inf), data_format="channels_last", **_LAYER
    ),
}
_OF_NUMBERS: dict[str, Callable[[Any], keras.Layer]] = {
    "noise": lambda deviation: keras.layers.GaussianNoise(deviation, **_LAYER),
    "feature_dropout": lambda rate: keras.layers.Dropout(rate, **_LAYER),
}


class Augmentation:
    """Layers that change batches of prepared features, by the name of the array.

    Attributes:
        generators: Where the layers' random numbers come from.
    """

    def __init__(self, layers: dict[str, list[keras.Layer]]) -> None:
        self._layers = layers
        every = [layer for each in layers.values() for layer in each]
        self.generators = [generator for layer in every for generator in layer._seed_generators]

    def __call__(self, x: Any) -> Any:
        """A changed batch of the same structure, for training."""
        if isinstance(x, dict):
            return {name: self._changed(name, array) for name, array in x.items()}
        return self._changed("x", x)

    def _changed(self, name: str, array: Any) -> Any:
        for layer in self._layers[name]:
            array = layer(array, training=True)
        return array


def make_augmentation(augment: Augment, x: Features) -> Augmentation | None:
    """For prepared features of this kind; None when nothing is to be changed."""
    layers = {name: _layers(augment, array) for name, array in named_arrays(x)}
    return Augmentation(layers) if any(layers.values()) else None


def check_augment(spec: StudySpec, x: Features, own: Collection[str], *, own_fit: bool) -> None:
    """Holds what the study file asks for against the data.

    Args:
        own: Names that the builder declares: they are not the trainer's.
        own_fit: Whether a HyperModel's `fit` trains, which is handed the rows as they are.

    Raises:
        SettingError: An entry is for pictures, and there are none; or all features are codes; or
            the HyperModel trains by itself.
    """
    for key in _asked(spec, own):
        if own_fit:
            raise SettingError(
                f"augment.{key}",
                f"{spec.model.builder} brings a `fit` of its own, which gets the rows unchanged; "
                "augment them there, or with layers in the model",
            )
        if not any(key in _known(array) for _, array in named_arrays(x)):
            shapes = [f"{name} {array.shape[1:]}" for name, array in named_arrays(x)]
            wanted = "pictures" if key in _OF_PICTURES else "numbers that are not to be embedded"
            raise SettingError(
                f"augment.{key}",
                f"it is for {wanted}; samples of this data have the shape {', '.join(shapes)}",
            )


def _asked(spec: StudySpec, own: Collection[str]) -> list[str]:
    space = {name: entry for name, entry in spec.space.items() if name not in own}
    return [
        key
        for key, nothing in _NOTHING
        if space.get(f"augment_{key}", getattr(spec.training.augment, key)) != nothing
    ]


def _known(array: Array) -> dict[str, Callable[[Any], keras.Layer]]:
    """What can be done to an array: nothing to codes, which are whole numbers."""
    if array.dtype.kind != "f":
        return {}
    return _OF_PICTURES | _OF_NUMBERS if array.ndim == 4 else _OF_NUMBERS


def _layers(augment: Augment, array: Array) -> list[keras.Layer]:
    known = _known(array)
    wanted = {key: value for key, value in augment if value != getattr(_NOTHING, key)}
    return [known[key](value) for key, value in wanted.items() if key in known]
