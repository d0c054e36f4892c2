"""Random numbers of a trial: they depend on its seed and the epoch alone."""

from __future__ import annotations

import gc
import itertools
import random
import threading
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import global_seed_generator
from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED
from numpy.typing import NDArray
from tensorflow.python.eager import context

_sessions = itertools.count()


def begin_session(seed: int) -> None:
    """Makes Keras forget the models before and seeds every source of random numbers.

    As `keras.utils.clear_session` and `set_random_seed` do, with one difference: graphs that
    TensorFlow has optimized stay so. Both throw them away, and a graph that trials share would be
    optimized again for each of them. The price: what a builder draws with `tf.random` comes again
    for the same seed in another process only, because TensorFlow keeps the states of these, too.
    """
    global_state.GLOBAL_STATE_TRACKER = threading.local()
    global_state.GLOBAL_SETTINGS_TRACKER = threading.local()
    # The first has no models of ours to forget.
    if next(_sessions):
        gc.collect()
    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for builders that draw from it
    running = context.context()
    running._seed, running._rng = seed, random.Random(seed)


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
