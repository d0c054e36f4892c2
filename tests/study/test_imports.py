"""Trials that come from elsewhere teach the sampler and take no slot."""

from __future__ import annotations

import optuna
import pytest

from hpo.errors import NoUsableTrialError
from hpo.spec.models import CategoricalParameter, FloatParameter, IntParameter, Parameter, Scalar
from hpo.study.database import Database
from hpo.study.imports import ImportedTrial, add_imported, off_range
from hpo.study.leases import NoSlot, Outcome, TrialWrites
from hpo.study.snapshot import best_trial, take_snapshot
from hpo.study.storage import StudyStorage, make_study
from hpo.study.suggest import suggest
from tests.servers import Plain
from tests.study.rooms import claimed, new_study, slots_of

RATE = FloatParameter(type="float", low=1e-4, high=1e-1, log=True)
UNITS = IntParameter(type="int", low=8, high=64, step=8)
MOMENTUM = FloatParameter(type="float", low=0.01, high=0.99, log=True, reverse=True)
KIND = CategoricalParameter(type="categorical", choices=("a", "b"))


def imported(source: str = "p:0", value: float = 0.9, units: int = 16) -> ImportedTrial:
    params: dict[str, tuple[Parameter, Scalar]] = {
        "rate": (RATE, 0.01),
        "units": (UNITS, units),
        "momentum": (MOMENTUM, 0.9),
        "kind": (KIND, "b"),
    }
    return ImportedTrial(source, value, params)


def test_optuna_reads_them(database: Database, plain: Plain) -> None:
    record = new_study(database)
    assert add_imported(database, record, [imported("p:0"), imported("p:1", 0.8)]) == 2
    study = optuna.load_study(study_name=record.name, storage=plain(database))
    assert [trial.number for trial in study.trials] == [0, 1]
    first = study.trials[0]
    assert (first.state.name, first.value) == ("COMPLETE", 0.9)
    assert first.params == pytest.approx(
        {"rate": 0.01, "units": 16, "momentum[mirrored]": 0.1, "kind": "b"}
    )
    assert first.user_attrs == {"imported_from": "p:0"}
    assert first.duration is not None


def test_a_source_is_imported_once(database: Database) -> None:
    record = new_study(database)
    assert add_imported(database, record, [imported("p:0")]) == 1
    assert add_imported(database, record, [imported("p:0"), imported("p:1")]) == 1


def test_the_study_still_runs_all_of_its_trials(database: Database) -> None:
    record = new_study(database, trials=2)
    add_imported(database, record, [imported("p:0", 0.99)])
    with pytest.raises(NoUsableTrialError):
        best_trial(database, record)
    slots = slots_of(database, record)
    numbers = []
    for value in (0.5, 0.6):
        lease = claimed(slots)
        numbers.append(lease.number)
        slots.write(lease, TrialWrites(), Outcome("COMPLETE", value))
    assert slots.claim() is NoSlot.FINISHED
    assert numbers == [1, 2]
    snapshot = take_snapshot(database, record)
    assert (snapshot.finished, snapshot.trials, snapshot.state) == (2, 2, "finished")
    assert (snapshot.best, snapshot.best_number) == (0.6, 2)
    assert best_trial(database, record).number == 2


def test_the_sampler_learns_from_them(sqlite_database: Database) -> None:
    record = new_study(sqlite_database, trials=1)
    trials = [
        imported(f"p:{i}", float(units), units) for i in range(40) for units in [8 + i % 8 * 8]
    ]
    add_imported(sqlite_database, record, trials)
    storage = StudyStorage(sqlite_database, record)
    lease = claimed(slots_of(sqlite_database, record))
    storage.hold(lease)
    # Only one who knows the trials begins where they are best.
    sampler = optuna.samplers.TPESampler(seed=1, multivariate=True, group=True)
    study = make_study(storage, record, sampler, optuna.pruners.NopPruner())
    trial = optuna.Trial(study, lease.trial_id)
    found = [suggest(trial, name, parameter) for name, (parameter, _) in imported().params.items()]
    assert found[1] >= 48  # type: ignore[operator]
    assert found[3] == "b"


def test_a_value_between_two_steps() -> None:
    assert off_range(imported()) is None
    assert off_range(imported(units=17)) == "units"
