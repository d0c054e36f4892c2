"""From a parameter's range to a value that Optuna's sampler suggests."""

from __future__ import annotations

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hpo.errors import BuilderError
from hpo.space.mirrors import is_mirrored, mirrored, stored_name
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
)


def suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Scalar:
    """The trial's value for the parameter: a stored one if it was suggested before.

    Raises:
        BuilderError: The parameter was another one before, or the sampler can't handle it.
    """
    try:
        value = _suggest(trial, stored_name(name, parameter), parameter)
    except ValueError as error:
        raise BuilderError(f"no value can be suggested for {name!r}: {error}") from error
    return _mirror(value, parameter)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """What a trial has in Optuna after `suggest` of the parameter."""
    if isinstance(parameter, BoolParameter):
        return CategoricalDistribution([False, True])
    if isinstance(parameter, CategoricalParameter):
        return CategoricalDistribution(parameter.choices)
    low, high = parameter.low, parameter.high
    if isinstance(parameter, FloatParameter):
        return FloatDistribution(low, high, log=parameter.log, step=parameter.step)
    return IntDistribution(int(low), int(high), log=parameter.log, step=parameter.step)


def stored(name: str, parameter: Parameter, value: Scalar) -> tuple[str, Scalar]:
    """Name and value as `suggest` leaves them in the study."""
    return stored_name(name, parameter), _mirror(value, parameter)


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Scalar:
    if isinstance(parameter, BoolParameter):
        return trial.suggest_categorical(name, [False, True])
    if isinstance(parameter, CategoricalParameter):
        return trial.suggest_categorical(name, list(parameter.choices))  # type: ignore[return-value]
    low, high = parameter.low, parameter.high
    if isinstance(parameter, FloatParameter):
        return trial.suggest_float(name, low, high, log=parameter.log, step=parameter.step)
    return trial.suggest_int(name, int(low), int(high), log=parameter.log, step=parameter.step)


def _mirror(value: Scalar, parameter: Parameter) -> Scalar:
    if not is_mirrored(parameter):
        return value
    assert isinstance(parameter, FloatParameter | IntParameter)
    assert isinstance(value, int | float)
    return mirrored(value, parameter.low, parameter.high)
