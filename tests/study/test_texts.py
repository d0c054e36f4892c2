"""Names and texts come back as they were written, whatever the database makes of its own."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from hpo.study.database import Database
from hpo.study.leases import Outcome
from hpo.study.storage import StudyStorage
from hpo.study.studies import open_study, study_names
from tests.servers import Plain
from tests.study.rooms import claimed, make_spec, new_study, slots_of

RANGE = FloatDistribution(0.0, 1.0)
NAMES = ("units", "Units", "UNITS", "\u00fcnits", "u\u0308nits", "\U0001f40d", "x" * 512)


def test_studies_may_differ_by_case(database: Database) -> None:
    small, large = new_study(database, 2, name="digits"), new_study(database, 3, name="Digits")
    assert small.study_id != large.study_id
    assert study_names(database) == ["digits", "Digits"]
    assert open_study(database, "digits").trials == 2
    assert open_study(database, "Digits").trials == 3


@pytest.mark.parametrize("kind", ["params", "user_attrs"])
def test_row_23_names_may_differ_by_case_and_accents(
    kind: str, database: Database, plain: Plain
) -> None:
    record = new_study(database)
    slots, storage = slots_of(database, record), StudyStorage(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    for index, name in enumerate(NAMES):
        if kind == "params":
            storage.set_trial_param(lease.trial_id, name, index / 8, RANGE)
        else:
            storage.set_trial_user_attr(lease.trial_id, name, index / 8)
    storage.finish(slots, Outcome("COMPLETE", 0.5))
    expected = {name: index / 8 for index, name in enumerate(NAMES)}
    assert getattr(StudyStorage(database, record).get_trial(lease.trial_id), kind) == expected
    theirs = optuna.load_study(study_name=record.name, storage=plain(database))
    assert getattr(theirs.trials[0], kind) == expected


def test_row_23_choices_may_differ_by_case_and_blanks(database: Database, plain: Plain) -> None:
    choices = ("relu", "Relu", "RELU", "relu ", " relu", "")
    record = new_study(database, trials=len(choices))
    slots, storage = slots_of(database, record), StudyStorage(database, record)
    for index in range(len(choices)):
        lease = claimed(slots)
        storage.hold(lease)
        storage.set_trial_param(lease.trial_id, "act", index, CategoricalDistribution(choices))
        storage.finish(slots, Outcome("COMPLETE", 0.5))
    theirs = optuna.load_study(study_name=record.name, storage=plain(database))
    for trials in (StudyStorage(database, record).get_all_trials(0), theirs.trials):
        assert [trial.params["act"] for trial in trials] == list(choices)


def test_row_23_megabytes_come_back(database: Database) -> None:
    record = new_study(database)
    slots, storage = slots_of(database, record), StudyStorage(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    text = "\u00e4\"\\'%(x)s:y\n" * 80_000
    storage.set_trial_user_attr(lease.trial_id, "traceback", text)
    storage.set_study_user_attr(record.study_id, "long", text)
    storage.flush(slots)
    again = StudyStorage(database, record)
    assert again.get_trial(lease.trial_id).user_attrs == {"traceback": text}
    assert again.get_study_user_attrs(record.study_id) == {"long": text}


def test_long_spec_comes_back(database: Database) -> None:
    space = {
        f"parameter_{number}": {"type": "categorical", "choices": [f"\u20ac{i}" for i in range(50)]}
        for number in range(200)
    }
    spec = make_spec(space=space)
    assert len(spec.to_json()) > 2**16
    record = new_study(database, space=space)
    assert open_study(database, record.name).spec == spec


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 1e-300, 1.7976931348623157e308, 5e-324, -123456789.123456789]
)
def test_numbers_keep_every_digit(value: float, database: Database) -> None:
    record = new_study(database)
    slots, storage = slots_of(database, record), StudyStorage(database, record)
    lease = claimed(slots)
    storage.hold(lease)
    storage.set_trial_intermediate_value(lease.trial_id, 1, value)
    storage.finish(slots, Outcome("COMPLETE", value))
    trial = StudyStorage(database, record).get_trial(lease.trial_id)
    assert trial.value == value
    assert trial.intermediate_values == {1: value}
