from __future__ import annotations

import importlib.util
import itertools
from typing import Any, get_args

import optuna
import pytest

from hpo.errors import BuilderError
from hpo.spec import StudySpec
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    PrunerName,
    SamplerName,
)
from hpo.study.database import Database
from hpo.study.leases import NoSlot, Outcome, release_worker
from hpo.study.snapshot import take_snapshot
from hpo.study.storage import StudyStorage, make_study
from hpo.study.strategies import check_strategies, make_pruner, make_sampler, trial_seed
from hpo.study.studies import StudyRecord, create_study
from hpo.study.suggest import suggest
from tests.servers import Plain
from tests.study.rooms import FACTS, claimed, make_spec, new_study, slots_of

GRID: dict[str, list[Any]] = {
    "depth": [1, 2],
    "dropout": [0.0, 0.5],
    "norm": [False, True],
    "optimizer": ["a", "b"],
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"n_startup_trials": 3},
    "random": {},
    "grid": {"search_space": GRID},
    "brute_force": {},
    "qmc": {"scramble": True},
    "nsgaii": {"population_size": 4},
    "nsgaiii": {"population_size": 4},
    "cmaes": {"n_startup_trials": 2},
}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {"n_startup_trials": 2},
    "percentile": {"percentile": 40.0, "n_startup_trials": 2},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
    "hyperband": {"reduction_factor": 2},
    "threshold": {"lower": 0.2},
    "patient": {"wrapped_pruner": {"type": "median", "n_startup_trials": 2}, "patience": 1},
    "wilcoxon": {"p_threshold": 0.3},
}
PARAMETERS: dict[str, Parameter] = {
    "depth": IntParameter(type="int", low=1, high=2),
    "dropout": FloatParameter(type="float", low=0, high=0.5, step=0.5),
    "norm": BoolParameter(type="bool"),
    "optimizer": CategoricalParameter(type="categorical", choices=("a", "b")),
}
HYPERBAND = ("bootstrap_count", "max_resource", "min_resource", "reduction_factor")
Params = dict[str, Any]


def _spec(trials: int = 10, sampler: Any = "tpe", pruner: Any = "none", **more: Any) -> StudySpec:
    return make_spec(trials, search={"sampler": sampler, "pruner": pruner}, **more)


def _run_trial(
    database: Database, record: StudyRecord, spec: StudySpec, worker: str = "a"
) -> tuple[Params, str] | None:
    """What a worker and its trainer do with one trial; None when there is none left."""
    slots, storage = slots_of(database, record, worker), StudyStorage(database, record)
    lease = slots.claim()
    if isinstance(lease, NoSlot):
        return None
    storage.hold(lease)
    study = make_study(storage, record, make_sampler(spec, lease.slot), make_pruner(spec))
    trial = optuna.Trial(study, lease.trial_id)
    params: Params = {
        name: suggest(trial, name, parameter) for name, parameter in PARAMETERS.items()
    }
    state, value = "COMPLETE", 0.0
    for epoch in range(1, 2 if spec.search.pruner.type == "none" else 10):
        value = epoch / 10 * params["depth"] / 2 + (0.1 if params["norm"] else 0)
        trial.report(value, epoch)
        prune = trial.should_prune()
        storage.flush(slots)
        if prune:
            state = "PRUNED"
            break
    told = optuna.trial.TrialState[state]
    study.sampler.after_trial(study, storage.get_trial(lease.trial_id), told, [value])
    storage.finish(slots, Outcome(state, value))
    return params, state


def _run(database: Database, spec: StudySpec) -> list[tuple[Params, str]]:
    record = create_study(database, spec, FACTS)
    run = []
    while (trial := _run_trial(database, record, spec)) is not None:
        run.append(trial)
    found = take_snapshot(database, record)
    assert (found.state, found.finished, found.running) == ("finished", spec.search.trials, 0)
    return run


def test_every_name_is_covered() -> None:
    assert set(SAMPLERS) == set(get_args(SamplerName))
    assert set(PRUNERS) == set(get_args(PrunerName))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_runs_a_study(name: str, database: Database) -> None:
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        pytest.skip("cmaes is missing: pip install cmaes")
    spec = _spec(sampler={"type": name, **SAMPLERS[name]})
    assert check_strategies(spec) == []
    trials = _run(database, spec)
    assert len(trials) == 10
    assert len({tuple(params.items()) for params, _ in trials}) > 2


@pytest.mark.parametrize("name", PRUNERS)
def test_pruner_runs_a_study(name: str, database: Database) -> None:
    spec = _spec(pruner={"type": name, **PRUNERS[name]}, sampler="random")
    assert check_strategies(spec) == []
    states = [state for _, state in _run(database, spec)]
    assert len(states) == 10
    if name in ("median", "percentile", "successive_halving", "threshold"):
        assert "PRUNED" in states
    if name == "none":
        assert set(states) == {"COMPLETE"}


# Seeds.


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("grid", "cmaes")])
def test_equal_seed_and_slot_give_equal_suggestions(name: str, sqlite_database: Database) -> None:
    runs = []
    for study in ("one", "two"):
        spec = _spec(6, {"type": name, **SAMPLERS[name]}, name=study)
        runs.append([params for params, _ in _run(sqlite_database, spec)])
    assert runs[0] == runs[1]
    assert len({tuple(params.items()) for params in runs[0]}) > 1


def _first_rates(spec: StudySpec) -> list[float]:
    """The first suggestion of each slot, when all of them begin at the same time."""
    rates = []
    for slot in range(6):
        study = optuna.create_study(sampler=make_sampler(spec, slot))
        rates.append(study.ask().suggest_float("rate", 0, 1))
    return rates


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsgaii", "nsgaiii", "cmaes"])
def test_slots_that_begin_together_draw_differently(name: str) -> None:
    spec = _spec(sampler={"type": name, **SAMPLERS[name]})
    rates = _first_rates(spec)
    assert len(set(rates)) == len(rates)
    assert _first_rates(spec) == rates
    other = _spec(sampler={"type": name, **SAMPLERS[name]}, training={"epochs": 9, "seed": 8})
    assert not set(_first_rates(other)) & set(rates)


def test_seeds_are_32_bits_and_differ() -> None:
    seeds = {trial_seed(seed, slot) for seed in range(20) for slot in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert trial_seed(2**40, 3) == trial_seed(2**40, 3)


def _draw(database: Database, record: StudyRecord, worker: str, *, ends: bool) -> float:
    """A trial's rate; a worker that does not end its trial has written nothing of it."""
    slots, storage = slots_of(database, record, worker), StudyStorage(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    sampler, pruner = make_sampler(record.spec, lease.slot), make_pruner(record.spec)
    trial = optuna.Trial(make_study(storage, record, sampler, pruner), lease.trial_id)
    rate = trial.suggest_float("rate", 0, 1)
    if ends:
        storage.finish(slots, Outcome("COMPLETE", 0.5))
    return rate


@pytest.mark.parametrize("together", [False, True])
def test_scrambled_sequence_is_one_for_all_slots(together: bool, sqlite_database: Database) -> None:
    """The points after the first one are those of a single scrambled Sobol sequence."""
    record = create_study(sqlite_database, _spec(9, {"type": "qmc", "scramble": True}), FACTS)
    _draw(sqlite_database, record, "first", ends=True)
    rates = [
        _draw(sqlite_database, record, f"worker-{slot}", ends=not together) for slot in range(1, 9)
    ]
    # Each eighth of the range holds exactly one of the first eight points.
    assert sorted(int(rate * 8) for rate in rates) == list(range(8))


def test_a_trial_that_is_taken_over_keeps_its_point(sqlite_database: Database) -> None:
    record = create_study(sqlite_database, _spec(3, {"type": "qmc", "scramble": True}), FACTS)
    _draw(sqlite_database, record, "first", ends=True)
    rate = _draw(sqlite_database, record, "killed", ends=False)
    other = _draw(sqlite_database, record, "other", ends=True)
    release_worker(sqlite_database, record.study_id, "killed")
    assert _draw(sqlite_database, record, "heir", ends=True) == rate != other


# Spaces that come to an end.


def test_grid_visits_every_point_once(database: Database) -> None:
    spec = _spec(16, {"type": "grid", "search_space": GRID})
    visited = [tuple(params[name] for name in GRID) for params, _ in _run(database, spec)]
    assert sorted(visited) == sorted(itertools.product(*GRID.values()))


@pytest.mark.parametrize("others", [0, 9])
def test_grid_visits_every_point_once_with_many_workers(
    others: int, sqlite_database: Database, plain: Plain
) -> None:
    """All slots are claimed before the first trial ends; somebody else's trials do not matter."""
    spec = _spec(16, {"type": "grid", "search_space": GRID})
    record = create_study(sqlite_database, spec, FACTS)
    study = optuna.load_study(study_name=record.name, storage=plain(sqlite_database))
    for _ in range(others):
        study.add_trial(optuna.trial.create_trial(value=0.1))
    visited = []
    for worker in range(16):
        lease = claimed(slots_of(sqlite_database, record, f"worker-{worker}"))
        storage = StudyStorage(sqlite_database, record)
        storage.hold(lease)
        study = make_study(storage, record, make_sampler(spec, lease.slot), make_pruner(spec))
        trial = optuna.Trial(study, lease.trial_id)
        visited.append(tuple(suggest(trial, name, PARAMETERS[name]) for name in GRID))
    assert sorted(visited) == sorted(itertools.product(*GRID.values()))


def test_brute_force_visits_every_point_before_it_repeats(database: Database) -> None:
    trials = _run(database, _spec(20, "brute_force"))
    visited = [tuple(params.values()) for params, _ in trials]
    assert len(set(visited[:16])) == 16
    # The budget is a promise: what is left of it repeats points.
    assert len(visited) == 20
    assert set(visited[16:]) <= set(visited[:16])


# Options.


def _problems(**search: Any) -> list[tuple[str, str]]:
    spec = make_spec(10, search=search)
    return [(".".join(map(str, e.path)), e.message) for e in check_strategies(spec)]


def test_unknown_options_are_told_with_the_nearest() -> None:
    assert _problems(
        sampler={"type": "tpe", "n_startup_trial": 3}, pruner={"type": "hyperband", "bogus": 1}
    ) == [
        (
            "search.sampler.n_startup_trial",
            "unknown option 'n_startup_trial' of tpe, did you mean 'n_startup_trials'?",
        ),
        (
            "search.pruner.bogus",
            f"unknown option 'bogus' of hyperband; it takes: {', '.join(HYPERBAND)}",
        ),
    ]


@pytest.mark.parametrize("option", ["seed", "gamma", "constraints_func", "independent_sampler"])
def test_options_that_are_not_the_users_are_unknown(option: str) -> None:
    ((path, words),) = _problems(sampler={"type": "tpe", option: 1})
    assert path == f"search.sampler.{option}"
    assert words.startswith("unknown option")


@pytest.mark.parametrize(
    ("search", "path", "words"),
    [
        (
            {"sampler": {"type": "tpe", "n_startup_trials": -3}},
            "sampler.n_startup_trials",
            "from 0",
        ),
        ({"sampler": "grid"}, "sampler", "write {type: grid, search_space: ...}"),
        ({"pruner": "percentile"}, "pruner", "needs percentile, a number from 0 to 100: write"),
        ({"pruner": "threshold"}, "pruner", "Either lower or upper must be specified"),
        ({"pruner": {"type": "threshold", "lower": 2, "upper": 1}}, "pruner", "smaller than upper"),
        ({"pruner": "patient"}, "pruner", "needs patience, a whole number from 0: write {type"),
        (
            {"pruner": {"type": "successive_halving", "bootstrap_count": 2}},
            "pruner",
            "mutually incompatible",
        ),
        (
            {"pruner": {"type": "hyperband", "min_resource": 20}},
            "pruner",
            "min_resource 20 is above max_resource 9",
        ),
        (
            {"pruner": {"type": "patient", "patience": 1, "wrapped_pruner": "mean"}},
            "pruner.wrapped_pruner",
            "expected the name of a pruner",
        ),
        (
            {
                "pruner": {
                    "type": "patient",
                    "patience": 1,
                    "wrapped_pruner": {"type": "median", "warmup": 1},
                }
            },
            "pruner.wrapped_pruner.warmup",
            "did you mean 'n_warmup_steps'?",
        ),
        (
            {"sampler": {"type": "tpe", "multivariate": False, "group": True}},
            "sampler",
            "``group`` option can only be enabled",
        ),
        (
            {"sampler": {"type": "grid", "search_space": {"x": [1, 2, 3], "y": [1, 2]}}},
            "trials",
            "the grid has 6 points, fewer than the 10 trials; set trials to 6",
        ),
        (
            {"sampler": {"type": "grid", "search_space": {n: [*range(9)] for n in "abcdefgh"}}},
            "sampler.search_space",
            "the grid has 43046721 points, more than",
        ),
        (
            {"sampler": {"type": "cmaes", "lr_adapt": True, "with_margin": True}},
            "sampler",
            "prohibited",
        ),
    ],
)
def test_wrong_options_are_told(search: Any, path: str, words: str) -> None:
    ((found, message),) = _problems(**search)
    assert found == f"search.{path}"
    assert words in message


@pytest.mark.parametrize(
    "search",
    [
        {"sampler": {"type": "tpe", "multivariate": False}},
        {"sampler": {"type": "tpe", "group": False}},
        {"sampler": {"type": "qmc", "qmc_type": "halton"}},
        {"pruner": {"type": "patient", "patience": 1}},
        {"pruner": {"type": "patient", "patience": 1, "wrapped_pruner": "hyperband"}},
        {"pruner": {"type": "successive_halving", "min_resource": "auto"}},
        {"pruner": {"type": "hyperband", "max_resource": "auto"}},
        {"pruner": {"type": "percentile", "percentile": 25}},
    ],
)
def test_right_options_are_accepted(search: Any) -> None:
    assert _problems(**search) == []


@pytest.mark.parametrize(
    ("epochs", "space", "most"),
    [
        (9, {}, 9),
        (9, {"epochs": 30}, 30),
        (9, {"epochs": {"type": "int", "low": 5, "high": 40}}, 40),
        (9, {"epochs": {"type": "categorical", "choices": [5, 50, 20]}}, 50),
    ],
)
def test_hyperband_learns_the_number_of_epochs(epochs: int, space: Any, most: int) -> None:
    training = {"epochs": epochs, "seed": 1}
    pruner: Any = make_pruner(_spec(pruner="hyperband", training=training, space=space))
    assert pruner._max_resource == most
    given = {"type": "hyperband", "max_resource": 7}
    pruner = make_pruner(_spec(pruner=given, training=training, space=space))
    assert pruner._max_resource == 7


def test_a_sampler_that_wants_finite_ranges_says_so(sqlite_database: Database) -> None:
    spec = _spec(sampler="brute_force")
    record = new_study(sqlite_database)
    slots, storage = slots_of(sqlite_database, record), StudyStorage(sqlite_database, record)
    lease = claimed(slots)
    storage.hold(lease)
    study = make_study(storage, record, make_sampler(spec, 0), make_pruner(spec))
    trial = optuna.Trial(study, lease.trial_id)
    rate = FloatParameter(type="float", low=0, high=1)
    with pytest.raises(BuilderError, match=r"'rate'.*step must be given"):
        suggest(trial, "rate", rate)
