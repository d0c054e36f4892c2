"""From a parameter's range to a value that Optuna's sampler suggests."""

from __future__ import annotations

import optuna

from hpo.errors import BuilderError
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    Parameter,
    Scalar,
)


def suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Scalar:
    """The trial's value for the parameter: a stored one if it was suggested before.

    Raises:
        BuilderError: The parameter was another one before, or the sampler can't handle it.
    """
    try:
        return _suggest(trial, name, parameter)
    except ValueError as error:
        raise BuilderError(f"no value can be suggested for {name!r}: {error}") from error


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Scalar:
    if isinstance(parameter, BoolParameter):
        return trial.suggest_categorical(name, [False, True])
    if isinstance(parameter, CategoricalParameter):
        return trial.suggest_categorical(name, list(parameter.choices))  # type: ignore[return-value]
    low, high = parameter.low, parameter.high
    if isinstance(parameter, FloatParameter):
        return trial.suggest_float(name, low, high, log=parameter.log, step=parameter.step)
    return trial.suggest_int(name, int(low), int(high), log=parameter.log, step=parameter.step)
