from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
from typing import Any

import optuna
import pytest

from hpo.errors import LeaseLostError, StudyNotFoundError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.leases import (
    Lease,
    NoSlot,
    Outcome,
    Slots,
    TrialWrites,
    release_worker,
)
from hpo.study.snapshot import take_snapshot
from hpo.study.studies import TIMED_OUT, StudyRecord, open_study, resume_study, stop_study
from tests.conftest import wait_for
from tests.processes import context
from tests.servers import Open, Plain
from tests.study.rooms import (
    COMPLETE,
    LONG,
    claimed,
    everything,
    expire,
    new_study,
    race,
    rows,
    slots_of,
    some_writes,
)


def _work_off(index: int, url: str) -> list[tuple[int, int, int]]:
    """Claims and ends trials until there are none left."""
    database = Database(url, patience=60)
    record = open_study(database, "digits")
    slots = Slots(database, record.study_id, f"worker-{index}", LONG)
    done = []
    while not isinstance(lease := slots.claim(), NoSlot) or lease is NoSlot.WAIT:
        if isinstance(lease, Lease):
            slots.write(lease, TrialWrites(values={1: 0.5}), COMPLETE)
            done.append((lease.slot, lease.number, lease.token))
    assert lease is NoSlot.FINISHED
    database.close()
    return done


def test_a_worker_of_a_study_that_was_deleted_is_told_so(database: Database, plain: Plain) -> None:
    slots = slots_of(database, new_study(database))
    lease = claimed(slots)
    optuna.delete_study(study_name="digits", storage=plain(database))
    for writes, outcome in [
        (TrialWrites(values={1: 0.5}), None),
        (some_writes(), None),
        (some_writes(), COMPLETE),
    ]:
        with pytest.raises(StudyNotFoundError, match="was deleted from the database"):
            slots.write(lease, writes, outcome)
    with pytest.raises(StudyNotFoundError, match="was deleted from the database"):
        slots.claim()


def test_a_worker_of_a_study_that_was_deleted_writes_nothing_into_the_next_one(
    database: Database,
) -> None:
    """On SQLite the new study, its trials and tokens have the numbers of the old ones."""
    old = slots_of(database, new_study(database), "old")
    before = claimed(old)
    storage = optuna.storages.RDBStorage(database.engine.url.render_as_string(False))
    optuna.delete_study(study_name="digits", storage=storage)
    record = new_study(database)
    new = slots_of(database, record, "new")
    lease = claimed(new)
    with pytest.raises((LeaseLostError, StudyNotFoundError)):
        old.write(before, some_writes(), COMPLETE)
    old.release(before)
    new.renew(lease)
    assert [row["state"] for row in rows(database, t.trials)] == ["RUNNING"]
    storage.engine.dispose()


def test_slots_are_claimed_exactly_once_by_processes(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    new_study(database, trials=200)
    found = [lease for done in race(_work_off, prepared_url) for lease in done]
    assert sorted(slot for slot, _, _ in found) == list(range(200))
    assert sorted(number for _, number, _ in found) == list(range(200))
    assert {token for _, _, token in found} == {1}
    trials = rows(database, t.trials)
    assert [trial["number"] for trial in trials] == list(range(200))
    assert {trial["state"] for trial in trials} == {"COMPLETE"}


def test_slots_are_claimed_exactly_once_by_threads(database: Database) -> None:
    record = new_study(database, trials=100)
    leases: list[Lease] = []

    def work(index: int) -> None:
        slots = slots_of(database, record, f"worker-{index}")
        while isinstance(lease := slots.claim(), Lease):
            leases.append(lease)
            slots.write(lease, TrialWrites(), COMPLETE)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.number for lease in leases) == list(range(100))
    assert sorted(lease.slot for lease in leases) == list(range(100))


def test_claim_begins_a_trial(database: Database) -> None:
    record = new_study(database)
    lease = claimed(slots_of(database, record))
    assert (lease.slot, lease.token, lease.number, lease.resumed) == (0, 1, 0, False)
    (trial,) = rows(database, t.trials)
    assert (trial["trial_id"], trial["state"]) == (lease.trial_id, "RUNNING")
    assert trial["datetime_start"] is not None


def test_nothing_to_claim_says_why(database: Database) -> None:
    record = new_study(database, trials=1)
    first, second = slots_of(database, record, "a"), slots_of(database, record, "b")
    lease = claimed(first)
    assert second.claim() is NoSlot.WAIT
    stop_study(database, record, "enough")
    assert second.claim() is NoSlot.STOPPED
    assert not second.study_runs()
    first.write(lease, TrialWrites(), COMPLETE)
    assert second.claim() is NoSlot.FINISHED


def test_stopped_study_goes_on_after_resume(database: Database) -> None:
    record = new_study(database)
    slots = slots_of(database, record)
    stop_study(database, record, "enough")
    assert slots.claim() is NoSlot.STOPPED
    resume_study(database, record)
    assert slots.study_runs()
    assert claimed(slots).number == 0


def test_studies_do_not_share_slots(database: Database) -> None:
    one, two = new_study(database, name="one"), new_study(database, name="two")
    assert claimed(slots_of(database, one)).number == 0
    assert claimed(slots_of(database, two)).number == 0
    assert claimed(slots_of(database, two, "b")).number == 1


# A lease that has run out.


def test_expired_lease_is_taken_over_with_its_trial(database: Database) -> None:
    record = new_study(database)
    lease = claimed(slots_of(database, record, "a"))
    expire(database, lease)
    taken = claimed(slots_of(database, record, "b"))
    assert taken == dataclasses.replace(lease, token=lease.token + 1, resumed=True)
    assert len(rows(database, t.trials)) == 1


def test_begun_trials_come_before_new_ones(database: Database) -> None:
    record = new_study(database)
    first, second = slots_of(database, record, "a"), slots_of(database, record, "b")
    claimed(first)
    lease = claimed(second)
    second.release(lease)
    assert claimed(slots_of(database, record, "c")).trial_id == lease.trial_id


def test_time_lets_a_lease_run_out(database: Database) -> None:
    record = new_study(database, trials=1)
    lease = claimed(slots_of(database, record, "a", seconds=0.2))
    other = slots_of(database, record, "b")
    taken = wait_for(lambda: isinstance(found := other.claim(), Lease) and found)
    assert (taken.trial_id, taken.token) == (lease.trial_id, 2)


def test_expired_lease_that_nobody_took_goes_on(database: Database) -> None:
    record = new_study(database, trials=1)
    slots = slots_of(database, record)
    lease = claimed(slots)
    expire(database, lease)
    slots.renew(lease)
    assert slots_of(database, record, "b").claim() is NoSlot.WAIT


@pytest.mark.parametrize("action", ["write", "report", "finish", "renew", "failure"])
def test_stale_token_writes_nothing(action: str, database: Database) -> None:
    record = new_study(database)
    stale = slots_of(database, record, "a")
    lease = claimed(stale)
    expire(database, lease)
    claimed(slots_of(database, record, "b"))
    before = everything(database)
    actions: dict[str, Any] = {
        "write": lambda: stale.write(lease, some_writes()),
        "report": lambda: stale.write(lease, TrialWrites(values={3: 0.1})),
        "finish": lambda: stale.write(lease, some_writes(), COMPLETE),
        "renew": lambda: stale.renew(lease),
        "failure": lambda: stale.record_failure(lease, "crashes", 3),
    }
    with pytest.raises(LeaseLostError, match=r"slot 0 \(trial 0\) ran out and was taken over"):
        actions[action]()
    stale.release(lease)
    assert everything(database) == before


def test_stale_token_of_a_finished_slot_writes_nothing(database: Database) -> None:
    record = new_study(database)
    stale, fresh = slots_of(database, record, "a"), slots_of(database, record, "b")
    lease = claimed(stale)
    expire(database, lease)
    fresh.write(claimed(fresh), TrialWrites(), COMPLETE)
    before = everything(database)
    with pytest.raises(LeaseLostError):
        stale.write(lease, some_writes(), Outcome("FAIL", None, "late"))
    assert everything(database) == before


def test_release_gives_the_slot_back_at_once(database: Database) -> None:
    record = new_study(database, trials=1)
    slots, other = slots_of(database, record, "a"), slots_of(database, record, "b")
    lease = claimed(slots)
    slots.release(lease)
    slots.release(lease)
    with pytest.raises(LeaseLostError):
        slots.write(lease, some_writes())
    taken = claimed(other)
    assert (taken.trial_id, taken.token, taken.resumed) == (lease.trial_id, 2, True)


def test_dead_workers_slot_is_given_back_at_once(database: Database) -> None:
    record = new_study(database, trials=2)
    dead, alive = slots_of(database, record, "dead"), slots_of(database, record, "alive")
    lease = claimed(dead)
    other = claimed(alive)
    release_worker(database, record.study_id, "dead")
    taken = claimed(slots_of(database, record, "heir"))
    assert (taken.trial_id, taken.token, taken.resumed) == (lease.trial_id, 2, True)
    alive.renew(other)
    with pytest.raises(LeaseLostError):
        dead.renew(lease)


# The time limit of the study.


def _let_the_deadline_pass(database: Database, record: StudyRecord) -> None:
    table = t.hpo_studies
    row = table.update().where(table.c.study_id == record.study_id).values(deadline=1.0)
    database.write(lambda connection: connection.execute(row))


def test_no_trial_begins_after_the_deadline(database: Database) -> None:
    record = new_study(database, search={"timeout": 100})
    slots = slots_of(database, record)
    slots.write(claimed(slots), TrialWrites(), COMPLETE)
    _let_the_deadline_pass(database, record)
    assert slots.claim() is NoSlot.STOPPED
    stopped = open_study(database, "digits")
    assert (stopped.state, stopped.reason) == (TIMED_OUT, "the time limit of the study was reached")
    snapshot = take_snapshot(database, record)
    assert (snapshot.state, snapshot.timed_out) == ("stopped", True)
    stop_study(database, record, "by hand")
    assert not take_snapshot(database, record).timed_out


def test_the_last_trial_may_end_after_the_deadline(database: Database) -> None:
    record = new_study(database, trials=1, search={"timeout": 100})
    slots = slots_of(database, record)
    lease = claimed(slots)
    _let_the_deadline_pass(database, record)
    slots.write(lease, TrialWrites(), COMPLETE)
    assert slots.claim() is NoSlot.FINISHED
    assert not take_snapshot(database, record).timed_out


def test_trials_in_flight_end_after_the_deadline(database: Database) -> None:
    record = new_study(database, search={"timeout": 100})
    slots, other = slots_of(database, record, "a"), slots_of(database, record, "b")
    lease = claimed(slots)
    _let_the_deadline_pass(database, record)
    assert other.claim() is NoSlot.WAIT
    assert slots.study_runs()
    expire(database, lease)
    taken = claimed(other)
    assert taken.trial_id == lease.trial_id
    other.write(taken, TrialWrites(), COMPLETE)
    assert other.claim() is NoSlot.STOPPED
    assert {trial["state"] for trial in rows(database, t.trials)} == {"COMPLETE"}


def test_short_deadline_passes_by_itself(database: Database) -> None:
    record = new_study(database, search={"timeout": 0.05})
    slots = slots_of(database, record)

    def claim() -> object:
        found = slots.claim()
        if isinstance(found, Lease):
            slots.write(found, TrialWrites(), COMPLETE)
        return found in (NoSlot.STOPPED, NoSlot.FINISHED)

    wait_for(claim)


# Trouble from outside.


def _claim_and_hang(url: str, told: Any) -> None:
    database = Database(url)
    slots = Slots(database, open_study(database, "digits").study_id, "killed", 0.3)
    lease = claimed(slots)
    told.send((lease.trial_id, lease.number))
    signal.pause()


def test_killed_process_leaves_no_orphan(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    record = new_study(database, trials=1)
    processes = context()
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_claim_and_hang, args=(prepared_url, theirs))
    process.start()
    assert ours.poll(30)
    trial_id, number = ours.recv()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    slots = slots_of(database, record, "heir")
    lease = wait_for(lambda: isinstance(found := slots.claim(), Lease) and found)
    assert (lease.trial_id, lease.number, lease.token) == (trial_id, number, 2)
    assert lease.resumed
    slots.write(lease, TrialWrites(), COMPLETE)
    assert [trial["state"] for trial in rows(database, t.trials)] == ["COMPLETE"]


def test_trial_ended_from_outside_keeps_that_result(database: Database, plain: Plain) -> None:
    record = new_study(database, trials=1)
    slots = slots_of(database, record)
    lease = claimed(slots)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    study.tell(lease.number, 0.9)
    slots.write(lease, TrialWrites(), COMPLETE)
    assert [value["value"] for value in rows(database, t.trial_values)] == [0.9]
    assert slots.claim() is NoSlot.FINISHED


def test_unfinished_numbers(database: Database) -> None:
    record = new_study(database, trials=4)
    slots, other = slots_of(database, record, "a"), slots_of(database, record, "b")
    slots.write(claimed(slots), TrialWrites(), COMPLETE)
    claimed(slots)
    other.release(claimed(other))
    assert slots.unfinished_numbers() == {1, 2}


def test_values_are_stored_as_optuna_stores_them(database: Database, plain: Plain) -> None:
    values = [0.1, 1e-300, -1.7e308, math.inf, -math.inf]
    record = new_study(database, trials=len(values))
    slots = slots_of(database, record)
    for value in values:
        slots.write(claimed(slots), TrialWrites(), Outcome("COMPLETE", value))
    study = optuna.load_study(study_name="digits", storage=plain(database))
    assert [trial.value for trial in study.trials] == values


@pytest.mark.parametrize("value", [None, math.nan])
def test_trial_without_a_value_has_failed(value: float | None, database: Database) -> None:
    record = new_study(database, trials=2)
    slots = slots_of(database, record)
    slots.write(claimed(slots), TrialWrites(), Outcome("COMPLETE", value))
    slots.write(claimed(slots), TrialWrites(), Outcome("PRUNED", value))
    assert [trial["state"] for trial in rows(database, t.trials)] == ["FAIL", "PRUNED"]
    assert rows(database, t.trial_values) == []
    assert rows(database, t.hpo_slots)[0]["failure"] == "the trial ended without a value"
