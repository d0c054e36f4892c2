from __future__ import annotations

import inspect
import math
from typing import Any

import pytest

from hpo.study.options import PRUNER_OPTIONS, SAMPLER_OPTIONS, check_options
from hpo.study.strategies import _pruner_class, _sampler_class

# Python objects, what Optuna has deprecated, what the service sets itself.
LEFT_OUT = {
    "tpe": "consider_prior prior_weight consider_magic_clip consider_endpoints gamma weights "
    "warn_independent_sampling constraints_func",
    "qmc": "independent_sampler warn_asynchronous_seeding warn_independent_sampling",
    "nsgaii": "mutation crossover constraints_func elite_population_selection_strategy "
    "child_generation_strategy after_trial_strategy",
    "nsgaiii": "mutation crossover constraints_func elite_population_selection_strategy "
    "child_generation_strategy after_trial_strategy reference_points",
    "cmaes": "x0 independent_sampler warn_independent_sampling restart_strategy inc_popsize "
    "source_trials",
}


def optunas_sampler(name: str) -> type:
    """Optuna's class, where ours is derived from it."""
    return next(
        kind for kind in _sampler_class(name).__mro__ if kind.__module__.startswith("optuna")
    )


@pytest.mark.parametrize("name", SAMPLER_OPTIONS)
def test_samplers_options_are_optunas(name: str) -> None:
    theirs = set(inspect.signature(optunas_sampler(name)).parameters)
    assert set(SAMPLER_OPTIONS[name]) | set(LEFT_OUT.get(name, "").split()) == theirs - {"seed"}


@pytest.mark.parametrize("name", [name for name in PRUNER_OPTIONS if name != "none"])
def test_pruners_options_are_optunas(name: str) -> None:
    assert set(PRUNER_OPTIONS[name]) == set(inspect.signature(_pruner_class(name)).parameters)


@pytest.mark.parametrize("name", [*SAMPLER_OPTIONS, *PRUNER_OPTIONS])
def test_optunas_defaults_are_accepted(name: str) -> None:
    sampler = name in SAMPLER_OPTIONS
    known = SAMPLER_OPTIONS[name] if sampler else PRUNER_OPTIONS[name]
    made_by = optunas_sampler(name) if sampler else _pruner_class(name)
    for option, parameter in inspect.signature(made_by).parameters.items():
        if option in known and parameter.default not in (None, inspect.Parameter.empty):
            assert known[option].accepts(parameter.default), option


@pytest.mark.parametrize(
    ("name", "option", "value", "words"),
    [
        ("tpe", "n_startup_trials", -3, "expected a whole number from 0, received -3"),
        ("tpe", "n_startup_trials", "ten", "expected a whole number from 0, received 'ten'"),
        ("tpe", "n_startup_trials", 3.0, "expected a whole number from 0, received 3.0"),
        ("tpe", "n_startup_trials", True, "expected a whole number from 0, received True"),
        ("tpe", "n_startup_trials", None, "expected a whole number from 0, received None"),
        ("tpe", "n_ei_candidates", 0, "expected a whole number from 1, received 0"),
        ("tpe", "multivariate", 1, "expected true or false, received 1"),
        ("qmc", "qmc_type", "faure", "expected one of sobol, halton, received 'faure'"),
        ("nsgaii", "population_size", 1, "expected a whole number from 2"),
        ("nsgaii", "mutation_prob", 1.5, "expected a number from 0 to 1, received 1.5"),
        ("cmaes", "sigma0", 0, "expected a number from 1e-12, received 0"),
        ("grid", "search_space", [1, 2], "expected a list of finite values for each parameter"),
        ("grid", "search_space", {}, "expected a list of finite values for each parameter"),
        (
            "grid",
            "search_space",
            {"x": "abc"},
            "expected a list of finite values for each parameter",
        ),
        ("grid", "search_space", {"x": []}, "expected a list of finite values for each parameter"),
        (
            "grid",
            "search_space",
            {"x": [[1]]},
            "expected a list of finite values for each parameter",
        ),
        ("grid", "search_space", {"x": [1.0, math.inf]}, "expected a list of finite values"),
        ("percentile", "percentile", 101, "expected a number from 0 to 100, received 101"),
        ("percentile", "percentile", "25", "expected a number from 0 to 100, received '25'"),
        ("median", "interval_steps", 0, "expected a whole number from 1, received 0"),
        ("threshold", "lower", "low", "expected a number, received 'low'"),
        ("threshold", "lower", float("nan"), "expected a number, received nan"),
        ("hyperband", "reduction_factor", 1, "expected a whole number from 2, received 1"),
        ("hyperband", "max_resource", "all", "expected a whole number from 1 or 'auto'"),
        ("patient", "wrapped_pruner", "mean", "expected the name of a pruner (none, median,"),
        ("patient", "wrapped_pruner", 5, "expected the name of a pruner"),
        ("patient", "wrapped_pruner", ["median"], "expected the name of a pruner"),
        ("patient", "wrapped_pruner", {"patience": 1}, "expected the name of a pruner"),
        ("patient", "wrapped_pruner", {"type": ["x"]}, "expected the name of a pruner"),
        ("wilcoxon", "p_threshold", 2, "expected a number from 0 to 1, received 2"),
    ],
)
def test_wrong_values_are_told(name: str, option: str, value: Any, words: str) -> None:
    known = SAMPLER_OPTIONS.get(name) or PRUNER_OPTIONS[name]
    (error,) = check_options(("search", "x"), name, {option: value}, known)
    assert error.path == ("search", "x", option)
    assert error.message.startswith(words)
