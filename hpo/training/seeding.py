"""How a trial begins: like the first one, with random numbers of its seed and the epoch alone."""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import global_seed_generator
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED
from numpy.typing import NDArray
from tensorflow.python.eager import context

_sessions = itertools.count()

# What users set with `keras.config` and Keras keeps beside its models.
_SETTINGS = ("dtype_policy", "flash_attention", "interactive_logging", "traceback_filtering")
# What it keeps for the whole process, whose names are those of its public functions.
_OF_THE_PROCESS = ("floatx", "epsilon", "image_data_format")
_SESSION = "hpo_session"


def begin_session(seed: int, settings: Mapping[str, Any] | None = None) -> None:
    """Makes Keras forget the models before and seeds every source of random numbers.

    As `keras.utils.clear_session` and `set_random_seed` do, with two differences. Other threads
    keep what is theirs, such as the notebook that has called `hpo.tune`. And graphs that
    TensorFlow has optimized stay so. Both throw them away, and a graph that trials share would be
    optimized again for each of them. The price: what a builder draws with `tf.random` comes again
    for the same seed in another process only, because TensorFlow keeps the states of these, too.

    Args:
        settings: As `keras_settings` has found them; Keras's defaults when left out.
    """
    vars(global_state.GLOBAL_STATE_TRACKER).clear()
    vars(global_state.GLOBAL_SETTINGS_TRACKER).clear()
    restore_settings(settings or {})
    global_state.set_global_attribute(_SESSION, dict(settings or {}))
    # The first has no models of ours to forget.
    if next(_sessions):
        gc.collect()
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for builders that draw from it
    running = context.context()
    running._seed, running._rng = seed, random.Random(seed)


def keras_settings() -> dict[str, Any]:
    """What is set of Keras and a trial may change for itself alone: dtype policy and the like."""
    found = {name: global_state.get_global_attribute(name) for name in _SETTINGS}
    found |= {name: getattr(keras.config, name)() for name in _OF_THE_PROCESS}
    return {name: value for name, value in found.items() if value is not None}


def restore_settings(settings: Mapping[str, Any]) -> None:
    """Has Keras in this thread set as it was when `keras_settings` found these."""
    for name in _SETTINGS:
        global_state.set_global_attribute(name, settings.get(name))
    for name in _OF_THE_PROCESS:
        if name in settings:
            getattr(keras.config, f"set_{name}")(settings[name])


def end_session() -> None:
    """Takes back what a builder has set of Keras for its own trial: no other one begins with it."""
    settings = global_state.get_global_attribute(_SESSION)
    if settings is not None:
        restore_settings(settings)


def forget_draws() -> None:
    """Has a builder find `tf.random` new, which `begin_session` leaves out.

    What else `keras.utils.clear_session` does needs TensorFlow 1's names, whose import takes a
    tenth of the whole.
    """
    context.context().clear_kernel_cache()


def epoch_order(seed: int, epoch: int, rows: int) -> NDArray[np.int32]:
    """The order of rows in an epoch: it depends on the trial's seed and the epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int32)


def seed_epoch(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets every random layer (dropout, noise, ...) for one epoch.

    A trial that another worker takes over at this epoch then draws the same numbers. Layers that
    draw with `tf.random` instead of `keras.random` are out of reach.
    """
    assign_seeds([*seed_generators(model), global_seed_generator()], seed, epoch)


def assign_seeds(generators: list[Any], seed: int, epoch: int) -> None:
    """Sets these generators for one epoch."""
    for index, generator in enumerate(generators):
        state = np.random.SeedSequence([seed, epoch, index]).generate_state(2)
        generator.state.assign(state.astype(generator.state.dtype))


def seed_generators(model: keras.Model) -> list[Any]:
    """Those of all layers of the model."""
    found: dict[int, Any] = {}
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            found[id(generator)] = generator
    return list(found.values())
