from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hpo.study.options import (
    PRUNER_OPTIONS,
    REQUIRED,
    SAMPLER_OPTIONS,
    Options,
    check_options,
)
from hpo.study.strategies import _pruner_class, _sampler_class
from tests.conftest import ROOT

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
    ("heading", "tables", "made_by"),
    [
        ("Options of samplers", SAMPLER_OPTIONS, optunas_sampler),
        ("Options of pruners", PRUNER_OPTIONS, _pruner_class),
    ],
)
def test_the_reference_has_every_option(
    heading: str, tables: Mapping[str, Options], made_by: Callable[[str], type]
) -> None:
    text = (ROOT / "docs" / "study-file.md").read_text()
    section = text.partition(f"#### {heading}\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    listed = {name: re.findall(r"`(\w+)`( \(required\))?", row) for name, row in rows.items()}
    # What a wrapped pruner's mapping holds is no option.
    assert {name: {option for option, _ in each} - {"type"} for name, each in listed.items()} == {
        name: set(options) for name, options in tables.items()
    }
    for name, each in listed.items():
        parameters = inspect.signature(made_by(name)).parameters
        required = {o for o in tables[name] if parameters[o].default is inspect.Parameter.empty}
        # Optuna's has no default, and takes None; left out, it is.
        required -= {"wrapped_pruner"}
        assert {option for option, mark in each if mark} == required == set(REQUIRED.get(name, ()))


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
    # What lacks beside it comes after.
    error, *_ = check_options(("search", "x"), name, {option: value}, known)
    assert error.path == ("search", "x", option)
    assert error.message.startswith(words)
