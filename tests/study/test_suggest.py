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
from hpo.study.suggest import distribution_of, stored, suggest

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
    assert trial.distributions["x"] == distribution == distribution_of(parameter)
    assert stored("x", parameter, value) == ("x", value)
    assert distribution._contains(distribution.to_internal_repr(value))
    assert suggest(trial, "x", parameter) == value


@pytest.mark.parametrize(
    "parameter",
    [
        FloatParameter(type="float", low=0.01, high=0.99, log=True, reverse=True),
        IntParameter(type="int", low=1, high=100, log=True, reverse=True),
    ],
)
def test_a_reversed_scale_is_stored_as_its_mirror_image(parameter: Any) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(200)]
    values = [suggest(trial, "x", parameter) for trial in trials]
    low, high = parameter.low, parameter.high
    for trial, value in zip(trials, values, strict=True):
        assert trial.distributions == {"x[mirrored]": distribution_of(parameter)}
        assert trial.params["x[mirrored]"] == pytest.approx(low + high - value)
        assert stored("x", parameter, value)[1] == pytest.approx(trial.params["x[mirrored]"])
        assert low <= value <= high
        assert suggest(trial, "x", parameter) == value
    # Half of the values lie in the last tenth of the range, as with KerasTuner's reverse_log.
    assert 0.4 < sum(value > low + 0.9 * (high - low) for value in values) / 200 < 0.6


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
