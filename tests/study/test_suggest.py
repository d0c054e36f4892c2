from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.errors import BuilderError
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
)
from hpo.study.suggest import suggest

CASES: list[tuple[Parameter, Any]] = [
    (BoolParameter(type="bool"), CategoricalDistribution((False, True))),
    (
        CategoricalParameter(type="categorical", choices=("a", 2, 2.5, True)),
        CategoricalDistribution(("a", 2, 2.5, True)),
    ),
    (FloatParameter(type="float", low=0, high=1), FloatDistribution(0, 1)),
    (
        FloatParameter(type="float", low=1e-5, high=1e-1, log=True),
        FloatDistribution(1e-5, 1e-1, log=True),
    ),
    (FloatParameter(type="float", low=0, high=1, step=0.25), FloatDistribution(0, 1, step=0.25)),
    (IntParameter(type="int", low=1, high=9, step=2), IntDistribution(1, 9, step=2)),
    (IntParameter(type="int", low=1, high=512, log=True), IntDistribution(1, 512, log=True)),
]


@pytest.mark.parametrize(("parameter", "distribution"), CASES)
def test_distribution_is_the_parameters_range(parameter: Parameter, distribution: Any) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    value = suggest(trial, "x", parameter)
    assert trial.distributions["x"] == distribution
    assert distribution._contains(distribution.to_internal_repr(value))
    assert suggest(trial, "x", parameter) == value


def test_truth_values_stay_truth_values() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    values = [suggest(study.ask(), "x", BoolParameter(type="bool")) for _ in range(20)]
    assert {type(value) for value in values} == {bool}
    assert len(set(values)) == 2


def test_what_the_sampler_can_not_handle_names_the_parameter() -> None:
    sampler = optuna.samplers.GridSampler({"units": [1]})
    trial = optuna.create_study(sampler=sampler).ask()
    with pytest.raises(BuilderError, match=r"'rate': .*not found in the given grid"):
        suggest(trial, "rate", FloatParameter(type="float", low=0, high=1))


def test_another_kind_within_a_trial_names_the_parameter() -> None:
    trial = optuna.create_study().ask()
    suggest(trial, "x", FloatParameter(type="float", low=0, high=1))
    with pytest.raises(BuilderError, match="no value can be suggested for 'x'"):
        suggest(trial, "x", BoolParameter(type="bool"))
