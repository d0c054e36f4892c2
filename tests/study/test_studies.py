from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from hpo.errors import StorageError, StudyMismatchError, StudyNotFoundError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.leases import NoSlot
from hpo.study.snapshot import best_trial, take_snapshot
from hpo.study.studies import (
    RUNNING,
    STOPPED,
    TIMED_OUT,
    Facts,
    create_study,
    open_study,
    resume_study,
    spec_differences,
    stop_study,
    study_names,
)
from tests.servers import Open, Plain
from tests.study.rooms import FACTS, claimed, make_spec, new_study, race, rows, slots_of


def test_study_is_an_optuna_study_with_slots(database: Database, plain: Plain) -> None:
    record = new_study(database, trials=4, direction="minimize")
    slots = rows(database, t.hpo_slots)
    assert [slot["slot"] for slot in slots] == [0, 1, 2, 3]
    assert {slot["state"] for slot in slots} == {"free"}
    assert record.metric == "val_accuracy"
    assert record.direction == "minimize"
    assert record.state == RUNNING
    study = optuna.load_study(study_name="digits", storage=plain(database))
    assert study.direction is optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["val_accuracy"]


def test_record_gives_back_spec_and_facts(database: Database) -> None:
    spec = make_spec(search={"sampler": {"type": "tpe", "n_startup_trials": 3}, "timeout": 60})
    record = create_study(database, spec, FACTS)
    assert record.spec == spec
    assert record.facts == FACTS
    assert open_study(database, "digits") == record


def _create(_index: int, url: str) -> tuple[Any, ...]:
    database = Database(url)
    record = new_study(database, trials=5)
    database.close()
    return dataclasses.astuple(record)


def test_race_makes_one_study(prepared_url: str, opened: Open) -> None:
    records = race(_create, prepared_url)
    assert len(set(records)) == 1
    database = opened(prepared_url)
    assert study_names(database) == ["digits"]
    assert [slot["slot"] for slot in rows(database, t.hpo_slots)] == list(range(5))


def _create_of_size(index: int, url: str) -> int:
    database = Database(url)
    try:
        return new_study(database, trials=index + 1).trials
    except StudyMismatchError:
        return 0
    finally:
        database.close()


def test_race_of_different_budgets_ends_with_the_largest(prepared_url: str, opened: Open) -> None:
    race(_create_of_size, prepared_url, count=6)
    database = opened(prepared_url)
    assert open_study(database, "digits").trials == 6
    assert [slot["slot"] for slot in rows(database, t.hpo_slots)] == list(range(6))


def test_equal_study_is_opened(database: Database) -> None:
    record = new_study(database)
    claimed(slots_of(database, record))
    assert new_study(database) == record
    assert len(rows(database, t.trials)) == 1


def test_every_difference_of_the_spec_is_named(database: Database) -> None:
    new_study(database)
    with pytest.raises(StudyMismatchError) as caught:
        new_study(
            database,
            training={"epochs": 10, "seed": 7},
            space={"units": {"type": "int", "low": 1, "high": 4}},
            search={"sampler": "random"},
        )
    words = str(caught.value)
    assert "training.epochs: the study has 9, here it is 10" in words
    assert "search.sampler.type: the study has tpe, here it is random" in words
    assert "space.units.high: the study has None, here it is 4" in words
    assert "training.seed" not in words
    assert open_study(database, "digits").spec == make_spec()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "d2"}, "data fingerprint: the study has d1, here it is d2"),
        ({"builder": "b2"}, "builder source: the study has b1, here it is b2"),
        ({"optuna": "4"}, "Optuna major version: the study has 5, here it is 4"),
        ({"keras": "2"}, "Keras major version: the study has 3, here it is 2"),
    ],
)
def test_different_facts_are_named(
    changes: dict[str, str], words: str, sqlite_database: Database
) -> None:
    new_study(sqlite_database)
    with pytest.raises(StudyMismatchError, match=words):
        create_study(sqlite_database, make_spec(), dataclasses.replace(FACTS, **changes))


def test_facts_of_the_signature_alone_make_no_difference() -> None:
    assert FACTS.differences(dataclasses.replace(FACTS, signature='{"a": 1}')) == []
    assert len(FACTS.differences(Facts("x", "x", "x", "x", ""))) == 4


def test_spec_differences_ignore_what_may_change() -> None:
    assert spec_differences(make_spec(3), make_spec(9, search={"timeout": 5})) == []


def test_more_trials_extend_the_study(database: Database) -> None:
    record = new_study(database, trials=2)
    lease = claimed(slots_of(database, record))
    extended = new_study(database, trials=5)
    assert extended.trials == 5
    assert extended.study_id == record.study_id
    assert extended.spec == make_spec(5)
    slots = rows(database, t.hpo_slots)
    assert [slot["slot"] for slot in slots] == list(range(5))
    assert slots[0]["trial_id"] == lease.trial_id


def test_fewer_trials_are_refused(database: Database) -> None:
    new_study(database, trials=3)
    with pytest.raises(StudyMismatchError, match=r"trials: the study has 3, here it is 2"):
        new_study(database, trials=2)
    assert len(rows(database, t.hpo_slots)) == 3


def test_another_timeout_starts_the_time_limit_anew(database: Database) -> None:
    new_study(database, search={"timeout": 100})
    before = rows(database, t.hpo_studies)[0]
    new_study(database, search={"timeout": 5000})
    after = rows(database, t.hpo_studies)[0]
    assert after["deadline"] - before["deadline"] > 4000
    assert after["created_at"] == before["created_at"]
    assert new_study(database).spec.search.timeout is None
    assert rows(database, t.hpo_studies)[0]["deadline"] is None


def test_extending_leaves_an_unchanged_time_limit(database: Database) -> None:
    new_study(database, trials=2, search={"timeout": 100})
    before = rows(database, t.hpo_studies)[0]["deadline"]
    new_study(database, trials=3, search={"timeout": 100})
    assert rows(database, t.hpo_studies)[0]["deadline"] == before


@pytest.mark.parametrize(("timeout", "state"), [(100, TIMED_OUT), (200, RUNNING)])
def test_another_timeout_lets_a_study_go_on_that_the_old_one_stopped(
    timeout: int, state: str, database: Database
) -> None:
    record = new_study(database, search={"timeout": 100})
    late = t.hpo_studies.update().values(deadline=1.0)
    database.write(lambda connection: connection.execute(late))
    assert slots_of(database, record).claim() is NoSlot.STOPPED
    after = new_study(database, search={"timeout": timeout})
    assert (after.state, after.reason is None) == (state, state == RUNNING)
    # It has nothing to do with a stop by hand.
    stop_study(database, after, "enough")
    assert new_study(database, search={"timeout": 300}).state == STOPPED


def test_name_of_a_plain_optuna_study_is_refused(database: Database, plain: Plain) -> None:
    optuna.create_study(study_name="digits", storage=plain(database))
    with pytest.raises(StudyMismatchError, match="not made by this service"):
        new_study(database)
    with pytest.raises(StudyMismatchError, match="choose another name"):
        open_study(database, "digits")
    assert study_names(database) == []
    assert rows(database, t.hpo_slots) == []


def test_study_deleted_with_plain_optuna_may_be_made_again(
    database: Database, plain: Plain
) -> None:
    record = new_study(database, trials=3)
    slots = slots_of(database, record)
    claimed(slots)
    optuna.delete_study(study_name="digits", storage=plain(database))
    assert study_names(database) == []
    with pytest.raises(StudyNotFoundError, match="deleted"):
        slots.claim()
    again = new_study(database, trials=2)
    ours = [slot for slot in rows(database, t.hpo_slots) if slot["study_id"] == again.study_id]
    assert [(slot["slot"], slot["token"]) for slot in ours] == [(0, 0), (1, 0)]


def test_unknown_study_lists_those_that_exist(database: Database) -> None:
    new_study(database, name="one")
    new_study(database, name="two")
    with pytest.raises(
        StudyNotFoundError, match=r"no study 'three' in .*; studies there: one, two"
    ):
        open_study(database, "three")
    assert study_names(database) == ["one", "two"]


def test_a_study_of_two_objectives_is_somebody_else_s(database: Database) -> None:
    storage = optuna.storages.RDBStorage(database.engine.url.render_as_string(False))
    directions = ["minimize", "maximize"]
    optuna.create_study(study_name="two", storage=storage, directions=directions)
    storage.engine.dispose()
    with pytest.raises(StudyMismatchError, match=r"'two' .* was not made by this service"):
        open_study(database, "two")


def test_no_study_at_all(database: Database) -> None:
    with pytest.raises(StudyNotFoundError, match="studies there: none"):
        open_study(database, "digits")


def test_reading_an_empty_database_creates_nothing(
    database_url: str, backend: str, opened: Open, tmp_path: Path
) -> None:
    if backend == "sqlite":
        (tmp_path / "hpo.db").touch()
    database = opened(database_url)
    with pytest.raises(StudyNotFoundError, match="holds no studies of this service"):
        open_study(database, "digits")
    assert study_names(database) == []
    assert database.read(lambda connection: sa.inspect(connection).get_table_names()) == []


def test_writing_without_tables_says_so(tmp_path: Path, opened: Open) -> None:
    database = opened(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)
    with pytest.raises(StorageError, match="no such table"):
        new_study(database)


def test_read_verbs_change_nothing(database: Database) -> None:
    record = new_study(database)
    before = [rows(database, table) for table in t.metadata.sorted_tables]
    open_study(database, "digits")
    study_names(database)
    take_snapshot(database, record)
    with pytest.raises(Exception, match="has a value yet"):
        best_trial(database, record)
    assert [rows(database, table) for table in t.metadata.sorted_tables] == before


def test_stop_and_resume(database: Database) -> None:
    record = new_study(database, search={"timeout": 100})
    first = rows(database, t.hpo_studies)[0]["deadline"]
    stop_study(database, record, "enough")
    stopped = open_study(database, "digits")
    assert (stopped.state, stopped.reason) == (STOPPED, "enough")
    resume_study(database, stopped)
    resumed = open_study(database, "digits")
    assert (resumed.state, resumed.reason) == (RUNNING, None)
    assert rows(database, t.hpo_studies)[0]["deadline"] >= first


def test_spec_in_the_database_is_json(database: Database) -> None:
    record = new_study(database)
    assert json.loads(record.spec_json)["name"] == "digits"
    assert json.loads(record.facts_json)["data"] == "d1"
