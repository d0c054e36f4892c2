"""Which models are Keras's own in every part, so that nothing of the user's runs in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.src.models.functional import Functional

from hpo.training.freeing import VariableDropout

_LAYERS = "keras.src.layers."
# They may hold what was learned from data, as constants of the graph.
_LEARNING_LAYERS = "keras.src.layers.preprocessing."


def is_plain(model: keras.Model) -> bool:
    """Whether a compiled model is Keras's own in every part that Python can tell apart."""
    optimizer = model.optimizer
    return (
        has_plain_layers(model)
        and type(optimizer).__module__.startswith("keras.src.optimizers.")
        and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        and not optimizer.use_ema
    )


def has_plain_layers(model: keras.Model) -> bool:
    """Whether it is a functional or sequential model of Keras's own layers and functions."""
    return type(model) in (Functional, keras.Sequential) and all(
        layer.built and _is_plain_layer(layer) for layer in model._flatten_layers()
    )


def written_model(model: keras.Model) -> dict[str, Any] | None:
    """As Keras writes it, None when it is not Keras's own in every part."""
    return _written(lambda: keras.saving.serialize_keras_object(model))


def written_compilation(model: keras.Model) -> dict[str, Any] | None:
    """What it was compiled with as Keras writes it, None when that is not all Keras's own."""
    return _written(model.get_compile_config)


def _written(write: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        written = write()
    except Exception:  # noqa: BLE001 - a loss or a metric of the user's, which need not be writable
        return None
    return written if _is_all_of_keras(written) else None


def _is_plain_layer(layer: Any) -> bool:
    """Whether a layer, or the model that holds it, is Keras's own in every part."""
    # What stands for Keras's dropout in a graph that others share does as that does.
    if type(layer) not in (Functional, keras.Sequential, VariableDropout):
        module = type(layer).__module__
        if not module.startswith(_LAYERS) or module.startswith(_LEARNING_LAYERS):
            return False
    functions = [value for value in vars(layer).values() if callable(value)]
    return all(_home(value).startswith("keras.") for value in functions)


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", None) or type(value).__module__)


def _is_all_of_keras(written: Any) -> bool:
    """Whether no part of a configuration is code of the user's."""
    if isinstance(written, dict):
        name = written.get("class_name")
        if name == "__lambda__":
            return False
        if name is not None and not str(name).startswith("__"):
            module = written.get("module")
            if module is None or module.partition(".")[0] != "keras":
                return False
        return all(map(_is_all_of_keras, written.values()))
    if isinstance(written, list | tuple):
        return all(map(_is_all_of_keras, written))
    return True
