"""`keras_tuner.HyperParameters` whose values come from a trial. Imports Keras: trainer only."""

from __future__ import annotations

import math
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as kt

from hpo.space.values import Values
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
)


class TrialHyperParameters(keras_tuner.HyperParameters):
    """What a builder receives as `hp`: the same interface, each value decided by `Values`.

    KerasTuner tells two parameters of one name apart by their conditions. In the study, then, a
    conditional parameter is named with them (`units[kind=mlp]`), unless the study file has an entry
    for the plain name.
    """

    def __init__(self, source: Values) -> None:
        super().__init__()
        self._source = source
        self._is_copy = False

    def _register(self, hyperparameter: Any, overwrite: bool = False) -> Any:
        name = hyperparameter.name
        if self.is_active(hyperparameter) and name not in self.values:
            self.values[name] = self._value(hyperparameter)
        return super()._register(hyperparameter, overwrite=False)

    def _value(self, hyperparameter: Any) -> Any:
        name, default = hyperparameter.name, hyperparameter.default
        if hyperparameter.conditions and not self._source.adds(name):
            name = qualified(hyperparameter)
        if isinstance(hyperparameter, kt.Fixed):
            self._source.fix(name, hyperparameter.value)
            return hyperparameter.value
        known = name in self._source.taken or self._source.adds(name)
        if self._is_copy and not known:
            return default
        return self._source.take(name, parameter_of(hyperparameter), default)

    def get(self, name: str) -> Any:
        full = self._get_name(name)
        if full not in self.values and full not in self._hps and self._source.adds(full):
            self.values[full] = self._source.take(full, None, None)
        return super().get(name)

    def copy(self) -> TrialHyperParameters:
        """The same values. As in KerasTuner, what only a copy is asked for is not searched."""
        twin = TrialHyperParameters(self._source)
        twin._is_copy = True
        twin.values = dict(self.values)
        twin.merge(self)
        return twin


def parameter_of(hyperparameter: Any) -> Parameter:
    """The range that a KerasTuner hyperparameter declares.

    KerasTuner counts steps up from the low end and may stop short of the high end; Optuna would
    include it, so the high end is the last value that KerasTuner reaches. Steps on a log scale
    become choices.
    """
    if isinstance(hyperparameter, kt.Boolean):
        return BoolParameter(type="bool")
    if isinstance(hyperparameter, kt.Choice):
        # KerasTuner lets a choice stand twice; Optuna would take the first for both.
        choices = tuple(dict.fromkeys(hyperparameter.values))
        return CategoricalParameter(type="categorical", choices=choices)
    return _numeric(hyperparameter)


def _numeric(hyperparameter: Any) -> Parameter:
    reverse = hyperparameter.sampling == "reverse_log"
    log = reverse or hyperparameter.sampling == "log"
    low, high, step = hyperparameter.min_value, hyperparameter.max_value, hyperparameter.step
    whole = isinstance(hyperparameter, kt.Int)
    if step is not None and hyperparameter.sampling != "linear":
        return CategoricalParameter(type="categorical", choices=_steps(hyperparameter, whole))
    if whole:
        step = int(step or 1)
        last = int(low) + (int(high) - int(low)) // step * step
        return IntParameter(
            type="int", low=int(low), high=last, log=log, reverse=reverse, step=step
        )
    if step is not None:
        # Rounded, or Optuna would warn of an end that is a hair off its last step.
        high = float(f"{low + step * math.floor((high - low) // step):.12g}")
    return FloatParameter(
        type="float", low=float(low), high=float(high), log=log, reverse=reverse, step=step
    )


def _steps(hyperparameter: Any, whole: bool) -> tuple[int | float, ...]:
    low, high, step = hyperparameter.min_value, hyperparameter.max_value, hyperparameter.step
    count = int(math.log(high / low, step) + 1e-8) + 1
    values = [low * step**index for index in range(count)]
    if hyperparameter.sampling == "reverse_log":
        values = [high + low - value for value in reversed(values)]
    return tuple(round(value) if whole else float(value) for value in values)


def qualified(hyperparameter: Any) -> str:
    """The name in the study: with its conditions, if it has any."""
    if not hyperparameter.conditions:
        return str(hyperparameter.name)
    conditions = ",".join(
        f"{condition.name}={'|'.join(map(str, condition.values))}"
        for condition in hyperparameter.conditions
    )
    return f"{hyperparameter.name}[{conditions}]"
