"""What the dashboard sees of studies, against what plain Optuna sees of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note

from hpo.study.database import Database
from hpo.watch.storage import WatchedStorage, hidden_trials

Watch = Callable[[int | None], optuna.storages.BaseStorage]

SPACE = {
    "rate": FloatDistribution(1e-5, 0.1, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "optimizer": CategoricalDistribution(["adam", "sgd", None]),
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hpo.db'}"


@pytest.fixture
def study(url: str) -> optuna.Study:
    return optuna.create_study(storage=url, study_name="one", direction="maximize")


@pytest.fixture
def watch(url: str) -> Iterator[Watch]:
    opened: list[tuple[Database, WatchedStorage]] = []

    def open_storage(most: int | None) -> optuna.storages.BaseStorage:
        database = Database(url)
        opened.append((database, WatchedStorage(database, most)))
        return optuna.storages.get_storage(opened[-1][1])

    yield open_storage
    for database, storage in opened:
        storage.remove_session()
        storage.engine.dispose()
        database.close()


def numbers(storage: optuna.storages.BaseStorage, study: optuna.Study) -> list[int]:
    return [trial.number for trial in storage.get_all_trials(study._study_id)]


def add(study: optuna.Study, *values: float) -> None:
    study.add_trials([create_trial(value=value) for value in values])


def test_trials_are_what_optuna_reads(study: optuna.Study, watch: Watch) -> None:
    params = {"rate": 0.01, "depth": 3, "optimizer": None}
    whole = {"params": params, "distributions": SPACE}
    reports = {3: 0.5, 1: math.inf, 2: math.nan}
    attrs = {"user_attrs": {"host": "ü", "n": [1]}, "system_attrs": {"completed_rung_0": 0.5}}
    study.add_trials(
        [
            create_trial(value=0.5, intermediate_values=reports, **whole, **attrs),
            create_trial(value=math.inf, **whole),
            create_trial(state=TrialState.PRUNED, intermediate_values=reports, **whole),
            create_trial(state=TrialState.FAIL),
            create_trial(state=TrialState.WAITING),
        ]
    )
    study.ask(SPACE).report(0.25, 1)

    expected = study._storage.get_all_trials(study._study_id)
    for most in (None, 100):
        # As texts, because NaN is not equal to itself.
        assert repr(watch(most).get_all_trials(study._study_id)) == repr(expected)


def test_a_study_of_several_objectives_is_shown_whole(url: str, watch: Watch) -> None:
    study = optuna.create_study(storage=url, directions=["maximize", "minimize"])
    study.add_trials([create_trial(values=[number, 1]) for number in range(5)])
    storage = watch(2)
    assert storage.get_all_trials(study._study_id) == study.trials
    assert [each.study_name for each in storage.get_all_studies()] == [study.study_name]


def test_a_part_of_a_large_study_and_what_comes_later(study: optuna.Study, watch: Watch) -> None:
    save_note(study, "a note")
    running = study.ask()
    add(study, *range(20, 0, -1))
    storage = watch(8)
    # The one that runs, the two best, the two latest, and four of the others.
    assert numbers(storage, study) == [0, 1, 2, 3, 7, 11, 15, 19, 20]
    running.report(0.5, 1)
    study.tell(running, 30)
    add(study, 5)
    assert numbers(storage, study) == [0, 1, 2, 3, 7, 11, 15, 19, 20, 21]
    assert storage.get_all_trials(study._study_id)[0] == study.trials[0]
    assert storage.get_best_trial(study._study_id).number == 0

    [shown] = storage.get_all_studies()
    assert shown.study_name == "one (12 trials not shown)"
    note = shown.system_attrs["dashboard:note_str:0"]
    assert note.startswith("**12 trials are not shown**")
    assert note.endswith("\n\na note")
    assert get_note(study) == "a note"
    # Only what is large at the first look has a part for the whole.
    assert numbers(watch(None), study) == list(range(22))


def test_the_best_is_the_one_that_optuna_names(study: optuna.Study, watch: Watch) -> None:
    add(study, *range(5, 15))
    study.add_trial(create_trial(value=math.inf))
    # Of a pruned trial the value may be on another scale.
    pruned = [create_trial(state=TrialState.PRUNED, value=100 + number) for number in range(30)]
    study.add_trials(pruned)
    add(study, *range(5))
    storage = watch(8)
    shown = numbers(storage, study)
    assert storage.get_best_trial(study._study_id).number == 10
    assert {10, 9} <= set(shown)


def test_a_large_study_without_a_note_says_so_too(study: optuna.Study, watch: Watch) -> None:
    add(study, *range(5))
    [shown] = watch(3).get_all_studies()
    assert "2 trials are not shown" in shown.system_attrs["dashboard:note_str:0"]
    assert "dashboard:note_ver" in shown.system_attrs


@pytest.mark.parametrize("count", [0, 1, 12])
def test_no_more_than_asked_for_are_all_shown(count: int) -> None:
    rows = [(key, float(key)) for key in range(count)]
    assert hidden_trials(rows, 12, maximize=True) == frozenset()


@pytest.mark.parametrize("most", range(1, 13))
@pytest.mark.parametrize("maximize", [True, False])
def test_so_many_as_asked_for_are_shown(most: int, maximize: bool) -> None:
    values = [3.0, None, 5.0, 1.0, 4.0, None, 2.0, 9.0, 0.0, 6.0, None, 7.0, 8.0]
    rows = list(enumerate(values))
    hidden = hidden_trials(rows, most, maximize=maximize)
    assert len(hidden) == len(rows) - most
    if most >= 4:
        assert 12 not in hidden
        assert (7 if maximize else 8) not in hidden
    if most >= 8:
        # Those that led when they came.
        assert hidden.isdisjoint({0, 2, 7} if maximize else {0, 3, 8})


def test_others_are_spread_over_all_of_the_study() -> None:
    rows = [(key, 0.0) for key in range(1000)]
    shown = sorted(set(range(1000)) - hidden_trials(rows, 100, maximize=True))
    gaps = [later - earlier for earlier, later in itertools.pairwise(shown)]
    assert max(gaps) <= 20
    assert shown[-25:] == list(range(975, 1000))


def test_trials_without_any_value() -> None:
    rows = [(key, None) for key in range(10)]
    assert len(hidden_trials(rows, 4, maximize=False)) == 6
