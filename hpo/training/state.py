"""What training goes on from beside a model's weights: the variables of its optimizers.

An optimizer may keep averages of the weights (`use_ema`). They are then what the model is judged
and exported with, while training goes on from the weights themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpo.training.compiling import own_optimizer


def optimizers(model: keras.Model) -> list[keras.Optimizer]:
    """The one that the model was compiled with, and those that it holds by names of its own.

    Alone, or in a list, tuple or mapping.
    """
    values = chain.from_iterable(_each(value) for value in vars(model).values())
    own = [value for value in values if isinstance(value, keras.Optimizer)]
    return list({id(each): each for each in (model.optimizer, *own)}.values())


def _each(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)


def state_variables(model: keras.Model) -> list[Any]:
    """Of all optimizers, the model's own first, each variable once."""
    # Mixed precision wraps an optimizer that the model may hold bare, too.
    every = [variable for each in optimizers(model) for variable in each.variables]
    return list({id(variable): variable for variable in every}.values())


def build_optimizers(model: keras.Model, batch: tuple[Any, ...]) -> None:
    """Makes the variables of those that a step updates with, before the first step."""
    every = optimizers(model)
    if all(each.built for each in every):
        return
    if len(every) == 1:
        model.optimizer.build(model.trainable_variables)
        return
    # Which variables each of them is for only the model's step knows.
    tf.function(model.train_step).get_concrete_function(batch)


def averages(model: keras.Model) -> bool:
    """Whether the optimizer keeps averages of the weights."""
    return bool(own_optimizer(model).use_ema)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Inside, the model has the averages, as Keras's `fit` leaves it at its end."""
    weights = [np.asarray(weight).copy() for weight in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, weight in zip(model.trainable_variables, weights, strict=True):
            variable.assign(weight)
