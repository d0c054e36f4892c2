from __future__ import annotations

import math
import subprocess
import sys
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import distribution_to_json

from hpo.errors import NoUsableTrialError
from hpo.spec.models import FloatParameter
from hpo.study import workers
from hpo.study.database import Database
from hpo.study.leases import Outcome, TrialWrites
from hpo.study.snapshot import best_numbers, best_trial, slot_of, take_snapshot
from hpo.study.storage import StudyStorage
from hpo.study.studies import StudyRecord, open_study, stop_study
from hpo.study.suggest import distribution_of, stored
from tests.servers import Open, Plain
from tests.study.rooms import claimed, expire, happens_at, new_study, slots_of

Ended = tuple[str, float | None]


def _end(database: Database, record: StudyRecord, *ends: Ended) -> None:
    slots = slots_of(database, record)
    for state, value in ends:
        slots.write(claimed(slots), TrialWrites(), Outcome(state, value))


def test_a_mirrored_parameter_is_shown_as_the_model_has_it(database: Database) -> None:
    record = new_study(database, trials=1)
    slots = slots_of(database, record)
    parameter = FloatParameter(type="float", low=0.01, high=0.99, log=True, reverse=True)
    name, value = stored("momentum", parameter, 0.95)
    param = {
        "param_name": name,
        "param_value": value,
        "distribution_json": distribution_to_json(distribution_of(parameter)),
    }
    slots.write(claimed(slots), TrialWrites(params=[param]), Outcome("COMPLETE", 1.0))
    assert best_trial(database, record).params == {"momentum": pytest.approx(0.95)}


def test_counts(database: Database) -> None:
    record = new_study(database, trials=9)
    _end(database, record, ("COMPLETE", 0.5), ("PRUNED", 0.4), ("FAIL", None), ("COMPLETE", 0.6))
    claimed(slots_of(database, record, "b"))
    lost = claimed(slots_of(database, record, "c"))
    given_back = slots_of(database, record, "d")
    lease = claimed(given_back)
    expire(database, lost)
    given_back.release(lease)
    found = take_snapshot(database, record)
    assert (found.complete, found.pruned, found.failed, found.finished) == (2, 1, 1, 4)
    assert (found.running, found.waiting, found.trials) == (1, 2, 9)
    assert (found.best, found.best_number) == (0.6, 3)
    assert (found.state, found.reason) == ("running", None)
    assert 0 <= found.seconds < 60


def test_stopped_and_finished(database: Database) -> None:
    record = new_study(database, trials=1)
    stop_study(database, record, "enough")
    assert (found := take_snapshot(database, record)).state == "stopped"
    assert found.reason == "enough"
    slots_record = new_study(database, name="two", trials=1)
    _end(database, slots_record, ("FAIL", None))
    stop_study(database, slots_record, "enough")
    found = take_snapshot(database, slots_record)
    assert (found.state, found.reason) == ("finished", None)
    assert take_snapshot(database, slots_record).seconds == found.seconds


def test_a_trial_that_ends_meanwhile_is_there_when_the_study_is_finished(
    database: Database, opened: Open
) -> None:
    states = set()
    for place in range(9):
        record = new_study(database, name=f"at-{place}", trials=1)
        slots = slots_of(database, record)
        end = partial(slots.write, claimed(slots), TrialWrites(), Outcome("COMPLETE", 0.5))
        watcher = opened(database.url)
        happens_at(watcher, place, end)
        found = take_snapshot(watcher, record)
        states.add(found.state)
        assert found.state == "running" or (found.finished, found.best) == (1, 0.5)
    assert states == {"running", "finished"}


def test_time_left_goes_by_the_workers_of_today(database: Database) -> None:
    record = new_study(database, trials=5)
    _end(database, record, ("COMPLETE", 0.5))
    assert take_snapshot(database, record).seconds_left is None
    workers.register(database, record.study_id, "a")
    assert take_snapshot(database, record).seconds_left is None
    _end(database, record, ("COMPLETE", 0.5), ("PRUNED", 0.5))
    left = take_snapshot(database, record).seconds_left
    assert left is not None
    assert 0 < left < 60
    _end(database, record, ("COMPLETE", 0.5), ("FAIL", None))
    assert take_snapshot(database, record).seconds_left is None


@pytest.mark.parametrize(
    ("direction", "number"), [("maximize", 2), ("minimize", 1)], ids=["maximize", "minimize"]
)
def test_best_goes_by_the_direction(direction: str, number: int, database: Database) -> None:
    record = new_study(database, trials=9, direction=direction)
    _end(database, record, ("COMPLETE", 0.5), ("COMPLETE", -1e300), ("COMPLETE", 1e300))
    assert best_trial(database, record).number == number
    assert take_snapshot(database, record).best_number == number


def test_pruned_is_usable_and_infinite_and_failed_are_not(database: Database) -> None:
    record = new_study(database, trials=9)
    _end(
        database,
        record,
        ("COMPLETE", math.inf),
        ("COMPLETE", math.nan),
        ("COMPLETE", 0.2),
        ("PRUNED", 0.9),
        ("PRUNED", None),
        ("FAIL", 1.0),
        ("COMPLETE", 0.9),
    )
    best = best_trial(database, record)
    assert (best.number, best.state, best.value) == (3, "PRUNED", 0.9)
    everything = range(2000)
    assert best_numbers(database, record, 2, everything) == [3, 6]
    assert best_numbers(database, record, 9, everything) == [3, 6, 2]
    assert best_numbers(database, record, 2, {2, 6, 400}) == [6, 2]
    assert best_numbers(database, record, 2, set()) == []


def test_no_usable_trial(database: Database) -> None:
    record = new_study(database, trials=9)
    _end(database, record, ("FAIL", None), ("COMPLETE", -math.inf))
    with pytest.raises(NoUsableTrialError, match="no finished trial of the study 'digits'"):
        best_trial(database, record)
    found = take_snapshot(database, record)
    assert (found.best, found.best_number) == (None, None)
    assert best_numbers(database, record, 3, range(9)) == []


def test_what_ended_trials_without_a_value(database: Database) -> None:
    record = new_study(database, trials=9)
    slots = slots_of(database, record)
    for state, reason in (("FAIL", "crash"), ("PRUNED", "NaN"), ("PRUNED", "NaN")):
        writes = TrialWrites(user_attrs={"reason": reason})
        slots.write(claimed(slots), writes, Outcome(state, None))
    with pytest.raises(NoUsableTrialError, match="has a value yet; 2 of them ended with: NaN"):
        best_trial(database, record)


def test_values_are_those_that_the_builder_received(database: Database) -> None:
    record = new_study(database, trials=1)
    slots, storage = slots_of(database, record), StudyStorage(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    optimizer = optuna.distributions.CategoricalDistribution(("sgd", "adam", 3, True))
    params: list[tuple[str, optuna.distributions.BaseDistribution, Any]] = [
        ("optimizer", optimizer, "adam"),
        ("norm", optuna.distributions.CategoricalDistribution((False, True)), True),
        ("units", optuna.distributions.IntDistribution(1, 512, log=True), 64),
        ("rate", optuna.distributions.FloatDistribution(0, 1), 0.1),
        ("grid", optuna.distributions.FloatDistribution(0, 1, step=0.25), 0.75),
    ]
    for name, distribution, value in params:
        internal = distribution.to_internal_repr(value)
        storage.set_trial_param(lease.trial_id, name, internal, distribution)
    storage.set_trial_user_attr(lease.trial_id, "epochs", 3)
    storage.finish(slots, Outcome("COMPLETE", 0.5))
    best = best_trial(database, record)
    assert best.params == {
        "optimizer": "adam",
        "norm": True,
        "units": 64,
        "rate": 0.1,
        "grid": 0.75,
    }
    assert type(best.params["units"]) is int
    assert best.params["norm"] is True
    assert best.attrs == {"epochs": 3}


def test_trials_that_somebody_adds_beside_are_not_counted(database: Database, plain: Plain) -> None:
    record = new_study(database, trials=2)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    study.add_trial(optuna.trial.create_trial(value=99.0))
    _end(database, record, ("COMPLETE", 0.5))
    found = take_snapshot(database, record)
    assert (found.finished, found.best) == (1, 0.5)
    best = best_trial(database, record)
    assert (best.number, slot_of(database, record, best.number)) == (1, 0)


def test_status_imports_no_heavy_package(sqlite_database: Database) -> None:
    new_study(sqlite_database)
    program = (
        "import sys\n"
        "from hpo.study.database import Database\n"
        "from hpo.study.snapshot import take_snapshot, best_trial\n"
        "from hpo.study.studies import open_study\n"
        "database = Database(sys.argv[1])\n"
        "print(take_snapshot(database, open_study(database, 'digits')).trials)\n"
        "print(sorted({'optuna', 'numpy', 'keras', 'pydantic', 'ruamel'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, sqlite_database.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3", "[]"]


def test_open_study_is_what_a_snapshot_needs(sqlite_database: Database) -> None:
    new_study(sqlite_database, name="one")
    assert take_snapshot(sqlite_database, open_study(sqlite_database, "one")).name == "one"
