"""Which trials TPE learns from, and that its suggestions are Optuna's while all of them fit in."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.study.database import Database
from hpo.study.leases import Outcome
from hpo.study.reading import read_sampled
from hpo.study.storage import StudyStorage, make_study
from hpo.study.studies import StudyRecord
from hpo.study.tpe import WindowTPESampler
from hpo.study.window import BEST, window_of
from tests.servers import Open, Plain
from tests.study.rooms import claimed, happens_at, new_study, slots_of

RECENT = 40
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0, 1, step=0.25),
    "units": IntDistribution(16, 512, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "norm": CategoricalDistribution((False, True, 0, 1)),
}
CONDITIONAL: dict[str, BaseDistribution] = {"momentum": FloatDistribution(0, 1)}


def _history(count: int, seed: int = 0) -> list[FrozenTrial]:
    """Finished trials of every kind, numbered; one in three has a parameter that others lack."""
    rng = random.Random(seed)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    trials = []
    for number in range(count):
        asked = study.ask(DISTRIBUTIONS | (CONDITIONAL if number % 3 == 0 else {}))
        state = rng.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED])
        state = TrialState.FAIL if number % 17 == 5 else state
        value = rng.choice([rng.random(), rng.random(), math.inf, -math.inf, 0.5])
        reports = {step: rng.random() for step in range(1, rng.randint(1, 4))}
        reports |= {5: math.nan} if number % 11 == 3 else {}
        trial = create_trial(
            state=state,
            value=value if state is TrialState.COMPLETE else None,
            params=asked.params,
            distributions=asked.distributions,
            intermediate_values=reports,
            constraints={"size": 1.0} if number % 13 == 7 else None,
        )
        trial.number = number
        trials.append(trial)
    return trials


def _finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state is not TrialState.FAIL]


def _numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


# Which trials.


def _complete(number: int, value: float) -> FrozenTrial:
    trial = create_trial(value=value)
    trial.number = number
    return trial


def test_all_trials_while_they_fit() -> None:
    trials = _finished(_history(RECENT))
    assert window_of(trials, maximize=True, recent=RECENT) == trials


@pytest.mark.parametrize("maximize", [True, False])
def test_best_and_most_recent_trials(maximize: bool) -> None:
    values = list(range(200))
    random.Random(1).shuffle(values)
    trials = [_complete(number, value) for number, value in enumerate(values)]
    window = _numbers(window_of(trials, maximize=maximize, recent=RECENT))
    best = sorted(range(200), key=lambda number: values[number], reverse=maximize)[:BEST]
    assert window == sorted({*best, *range(200 - RECENT, 200)})


def test_best_ones_are_those_that_tpe_takes() -> None:
    """What TPE takes as the best of the window is what it would take of all trials."""
    trials = [trial for trial in _finished(_history(300)) if not trial.constraints]
    study = optuna.create_study(direction="maximize")
    from optuna.samplers._tpe.sampler import _split_trials

    for chosen in (trials, [trial for trial in trials if trial.state is TrialState.PRUNED]):
        window = window_of(chosen, maximize=True, recent=RECENT)
        below, above = _split_trials(study, chosen, BEST)
        windows_below, windows_above = _split_trials(study, window, BEST)
        assert windows_below == below
        assert _numbers(windows_above) == [n for n in _numbers(above) if n in _numbers(window)]


def test_one_after_another_gives_what_all_at_once_give() -> None:
    trials = _finished(_history(200))
    late = trials.pop(30)
    window: list[FrozenTrial] = []
    for trial in [*trials, late]:
        together = sorted([*window, trial], key=lambda one: one.number)
        window = window_of(together, maximize=True, recent=RECENT)
    everything = sorted([*trials, late], key=lambda one: one.number)
    assert window == window_of(everything, maximize=True, recent=RECENT)


# What is read of the database.


def _read(storage: StudyStorage) -> list[FrozenTrial]:
    return storage.sampled_trials(RECENT)


def _expected(plain: Plain, database: Database, record: StudyRecord) -> list[int]:
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = plain(database).get_all_trials(record.study_id, states=states)
    return _numbers(window_of(trials, maximize=True, recent=RECENT))


def test_newcomer_and_old_hand_see_the_same_window(database: Database, plain: Plain) -> None:
    record = new_study(database)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    old_hand = StudyStorage(database, record)
    history = _history(130)
    for start in range(0, len(history), 26):
        study.add_trials(history[start : start + 26])
        window = _read(old_hand)
        assert _numbers(window) == _expected(plain, database, record)
        assert _fields(window) == _fields(_read(StudyStorage(database, record)))


def test_only_pruned_trials(sqlite_database: Database, plain: Plain) -> None:
    record = new_study(sqlite_database)
    study = optuna.load_study(study_name="digits", storage=plain(sqlite_database))
    pruned = [trial for trial in _history(200) if trial.state is TrialState.PRUNED]
    study.add_trials(pruned)
    assert len(pruned) > RECENT
    window = _numbers(_read(StudyStorage(sqlite_database, record)))
    assert window == _expected(plain, sqlite_database, record)


def test_late_trial_joins_the_window(database: Database, plain: Plain) -> None:
    """One that began first and ended last, told by plain Optuna, by far the best."""
    record = new_study(database)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    late = study.ask(CONDITIONAL)
    storage = StudyStorage(database, record)
    assert [trial.state for trial in _read(storage)] == [TrialState.RUNNING]
    study.add_trials(_history(RECENT + 10))
    assert late.number in _numbers(_read(storage))
    study.tell(late, math.inf)
    window = {trial.number: trial for trial in _read(storage)}
    assert window[late.number].state is TrialState.COMPLETE
    assert window[late.number].params == late.params


def test_a_trial_that_ends_while_one_joins_counts_once(
    database: Database, plain: Plain, opened: Open
) -> None:
    for place in range(6):
        record = new_study(database, name=f"at-{place}")
        study = optuna.load_study(study_name=record.name, storage=plain(database))
        late = study.ask(CONDITIONAL)
        study.add_trials([create_trial(value=value) for value in range(BEST + RECENT)])
        joining = opened(database.url)
        happens_at(joining, place, partial(study.tell, late, math.inf))
        storage = StudyStorage(joining, record)
        _read(storage)
        study.add_trials([create_trial(value=-1.0) for _ in range(RECENT)])
        assert _numbers(_read(storage)) == _expected(plain, database, record)


def test_running_trials_of_others_are_seen(database: Database) -> None:
    """With what their sampler has noted for them, so that workers do not try the same."""
    record = new_study(database)
    holder, reader = slots_of(database, record), StudyStorage(database, record)
    storage = StudyStorage(database, record)
    lease = claimed(holder)
    storage.hold(lease)
    assert [trial.system_attrs for trial in _read(reader)] == [{}]
    storage.set_trial_param(lease.trial_id, "rate", 0.5, FloatDistribution(0, 1))
    storage.set_trial_system_attr(lease.trial_id, "tpe:relative_params:0", '{"rate": 0.5}')
    storage.set_trial_user_attr(lease.trial_id, "device", "CPU")
    storage.flush(holder)
    (trial,) = _read(reader)
    assert (trial.state, trial.params) == (TrialState.RUNNING, {"rate": 0.5})
    assert trial.system_attrs == {"tpe:relative_params:0": '{"rate": 0.5}'}
    assert trial.user_attrs == {}
    storage.finish(holder, Outcome("FAIL"))
    assert _read(reader) == []


def _end(database: Database, record: StudyRecord, storage: StudyStorage, outcome: Outcome) -> None:
    """A trial of every kind of write, ended by the worker of the storage."""
    slots = slots_of(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    for name, distribution in (DISTRIBUTIONS | CONDITIONAL).items():
        value = 1.0 if name == "norm" else 16.0
        storage.set_trial_param(lease.trial_id, name, value, distribution)
    for step, value in ((1, 0.25), (2, math.nan), (3, math.inf)):
        storage.set_trial_intermediate_value(lease.trial_id, step, value)
    storage.set_trial_system_attr(lease.trial_id, "constraints:size", 1.0)
    storage.set_trial_system_attr(lease.trial_id, "tpe:relative_params:0", '{"rate": 0.5}')
    storage.set_trial_system_attr(lease.trial_id, "other", 1)
    storage.set_trial_user_attr(lease.trial_id, "device", "CPU")
    storage.finish(slots, outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("COMPLETE", 0.5),
        Outcome("COMPLETE", -math.inf),
        Outcome("PRUNED", 0.25),
        Outcome("PRUNED"),
        Outcome("COMPLETE", math.nan),
        Outcome("FAIL"),
    ],
    ids=str,
)
def test_what_a_worker_knows_is_what_others_read(outcome: Outcome, database: Database) -> None:
    record = new_study(database, trials=9)
    storage = StudyStorage(database, record)
    _read(storage)
    for _ in range(2):
        _end(database, record, storage, outcome)
        assert _fields(_read(storage)) == _fields(_read(StudyStorage(database, record)))


def test_result_that_was_told_from_outside_is_read(database: Database, plain: Plain) -> None:
    record = new_study(database)
    storage, slots = StudyStorage(database, record), slots_of(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    _read(storage)
    plain(database).set_trial_state_values(lease.trial_id, TrialState.COMPLETE, [0.75])
    # The trial is still the worker's, whose sampler looks for the next value.
    (trial,) = _read(storage)
    assert trial.value == 0.75
    storage.finish(slots, Outcome("COMPLETE", 0.5))
    (trial,) = _read(storage)
    assert trial.value == 0.75


def test_trials_have_what_tpe_looks_at(database: Database, plain: Plain) -> None:
    record = new_study(database)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    study.add_trials(_history(40))
    theirs = plain(database).get_all_trials(record.study_id)
    ours = database.read(lambda c: read_sampled(c, [trial._trial_id for trial in theirs]))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.params == other.params
        assert mine.distributions == other.distributions
        assert (mine.state, mine.values) == (other.state, other.values)
        assert mine.constraints == other.constraints
        last = [] if mine.state is not TrialState.PRUNED else sorted(other.intermediate_values)[-1:]
        reports = {step: other.intermediate_values[step] for step in last}
        assert repr(mine.intermediate_values) == repr(reports)


def _fields(trials: list[FrozenTrial]) -> list[dict[str, str]]:
    """As text, because NaN differs from NaN."""
    return [{name: repr(value) for name, value in trial.__dict__.items()} for trial in trials]


# What is suggested.


def _suggested(study: optuna.Study, trial: optuna.Trial) -> dict[str, Any]:
    for name, distribution in (DISTRIBUTIONS | CONDITIONAL).items():
        trial._suggest(name, distribution)
    return trial.params


@pytest.mark.parametrize("count", [0, 12, 90])
@pytest.mark.parametrize("multivariate", [True, False])
def test_suggestions_equal_optunas(
    multivariate: bool, count: int, sqlite_database: Database, plain: Plain
) -> None:
    """With others at work, constraints, infinities, and a parameter that few trials have."""
    record = new_study(sqlite_database)
    theirs = optuna.load_study(study_name="digits", storage=plain(sqlite_database))
    theirs.add_trials(_history(count))
    _suggested(theirs, theirs.ask())
    options: dict[str, Any] = {"multivariate": multivariate, "group": multivariate, "seed": 9}
    lease = claimed(slots_of(sqlite_database, record))
    storage = StudyStorage(sqlite_database, record)
    storage.hold(lease)
    samplers = (optuna.samplers.TPESampler(**options), WindowTPESampler(**options))
    found = []
    for sampler in samplers:
        # Nothing is flushed, so both see the same study; each in a trial of its own memory.
        storage.hold(lease)
        study = make_study(storage, record, sampler, optuna.pruners.NopPruner())
        found.append(_suggested(study, optuna.Trial(study, lease.trial_id)))
    assert found[0] == found[1]


def test_suggestions_rest_on_the_window_alone(sqlite_database: Database, plain: Plain) -> None:
    """A study of all trials and one that never had any but those of the window suggest alike."""
    history = _finished(_history(120))
    window = window_of(history, maximize=True, recent=RECENT)
    assert len(window) < len(history)
    options: dict[str, Any] = {"multivariate": True, "group": True, "seed": 9}
    found = []
    for trials, sampler in (
        (history, WindowTPESampler(recent=RECENT, **options)),
        (window, optuna.samplers.TPESampler(**options)),
    ):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(trials)
        found.append(_suggested(study, study.ask()))
    assert found[0] == found[1]
