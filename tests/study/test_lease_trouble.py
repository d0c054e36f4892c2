"""Answers that get lost, trials that fail, and trials that kill their workers."""

from __future__ import annotations

import json

import pytest

from hpo.errors import LeaseLostError
from hpo.study import tables as t
from hpo.study.database import Database, T, Work
from hpo.study.leases import (
    MOST_LOST,
    Lease,
    NoSlot,
    Outcome,
    Slots,
    TrialWrites,
    release_worker,
)
from hpo.study.studies import StudyRecord, open_study, resume_study, stop_study
from hpo.study.workers import worker_name
from tests.servers import Open
from tests.study.rooms import (
    COMPLETE,
    claimed,
    everything,
    expire,
    new_study,
    rows,
    slots_of,
    some_writes,
)

# Answers that get lost on their way.


class _Forgetful(Database):
    """Commits, and loses the acknowledgement of the first transaction."""

    lost = 0

    def write(self, work: Work[T], patience: float | None = None) -> T:
        if not self.lost:
            self.lost = 1
            super().write(work, patience)
        return super().write(work, patience)

    def write_at_once(self, work: Work[T], patience: float | None = None) -> T:
        if not self.lost:
            self.lost = 1
            super().write_at_once(work, patience)
        return super().write_at_once(work, patience)


def test_own_lost_claim_is_found_again(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    record = new_study(database)
    forgetful = _Forgetful(prepared_url)
    lease = claimed(slots_of(forgetful, record))
    assert (lease.slot, lease.number, lease.token) == (0, 0, 2)
    assert len(rows(database, t.trials)) == 1
    forgetful.close()


def test_own_lost_claim_comes_before_anything_else(database: Database) -> None:
    record = new_study(database)
    other, slots = slots_of(database, record, "b"), slots_of(database, record, "a")
    given_back = claimed(other)
    lost = claimed(slots)
    other.release(given_back)
    assert claimed(slots).trial_id == lost.trial_id


def test_lost_acknowledgement_of_a_result_is_harmless(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    record = new_study(database)
    lease = claimed(slots_of(database, record))
    forgetful = _Forgetful(prepared_url)
    slots_of(forgetful, record).write(lease, some_writes(), COMPLETE)
    assert forgetful.lost
    assert [trial["state"] for trial in rows(database, t.trials)] == ["COMPLETE"]
    assert [value["value"] for value in rows(database, t.trial_values)] == [0.5]
    forgetful.close()


def test_finishing_twice_keeps_the_first_result(database: Database) -> None:
    record = new_study(database)
    slots = slots_of(database, record)
    lease = claimed(slots)
    slots.write(lease, some_writes(), COMPLETE)
    before = everything(database)
    slots.write(lease, TrialWrites(values={9: 9.0}), Outcome("FAIL", None, "other"))
    slots.renew(lease)
    assert not slots.record_failure(lease, "crashes", 3)
    assert everything(database) == before


def test_lost_acknowledgement_of_a_failure_counts_once(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    record = new_study(database)
    lease = claimed(slots_of(database, record))
    forgetful = _Forgetful(prepared_url)
    assert slots_of(forgetful, record).record_failure(lease, "crashes", 2)
    assert rows(database, t.hpo_slots)[0]["crashes"] == 1
    forgetful.close()


# Failures.


def test_failures_are_counted_until_none_is_allowed(database: Database) -> None:
    record = new_study(database, trials=1)
    slots = slots_of(database, record)
    outcomes = []
    for _ in range(3):
        lease = claimed(slots)
        outcomes.append(slots.record_failure(lease, "crashes", 2))
    assert outcomes == [True, True, False]
    assert slots.record_failure(lease, "exceptions", 0) is False
    (slot,) = rows(database, t.hpo_slots)
    assert (slot["crashes"], slot["exceptions"], slot["state"]) == (3, 1, "leased")
    slots.write(lease, TrialWrites(), Outcome("FAIL", None, "crash"))
    assert [trial["state"] for trial in rows(database, t.trials)] == ["FAIL"]
    assert slots.claim() is NoSlot.FINISHED


def _end_all(slots: Slots, *failures: str | None) -> None:
    for failure in failures:
        state = "COMPLETE" if failure is None else "FAIL"
        outcome = Outcome(state, None if failure else 0.5, failure)
        slots.write(claimed(slots), TrialWrites(), outcome)


@pytest.mark.parametrize(
    ("failures", "stops"),
    [
        (("x", "x", "x"), True),
        (("y", "x", "x", "x"), True),
        (("x", "x"), False),
        (("x", None, "x", "x"), False),
        (("x", "x", "y"), False),
        ((None, None, None), False),
    ],
)
def test_equal_failures_in_a_row_stop_the_study(
    failures: tuple[str | None, ...], stops: bool, database: Database
) -> None:
    record = new_study(database, trials=9)
    slots = slots_of(database, record)
    _end_all(slots, *failures)
    slots.stop_after_equal_failures(3, "x: no memory")
    assert (slots.claim() is NoSlot.STOPPED) == stops
    reason = "the last 3 trials failed alike: x: no memory"
    assert open_study(database, "digits").reason == (reason if stops else None)


def test_equal_failures_are_counted_anew_after_a_resume(database: Database) -> None:
    record = new_study(database, trials=9)
    slots = slots_of(database, record)
    _end_all(slots, "x", "x", "x")
    slots.stop_after_equal_failures(3, "x: no memory")
    resume_study(database, record)
    for stops in (False, False, True):
        _end_all(slots, "x")
        slots.stop_after_equal_failures(3, "x: no memory")
        assert slots.study_runs() != stops


def test_a_stop_keeps_its_first_reason(database: Database) -> None:
    record = new_study(database, trials=9)
    slots = slots_of(database, record)
    _end_all(slots, "x", "x")
    stop_study(database, record, "by hand")
    slots.stop_after_equal_failures(2, "x")
    assert open_study(database, "digits").reason == "by hand"


def test_failure_may_hold_any_text(database: Database) -> None:
    record = new_study(database, trials=9)
    slots = slots_of(database, record)
    _end_all(slots, "nul \0, half a pair \ud800, ünï")
    slots.stop_after_equal_failures(1, "nul \0, half a pair \ud800, ünï")
    assert "ünï" in rows(database, t.hpo_slots)[0]["failure"]
    assert slots.claim() is NoSlot.STOPPED


# Trials that kill their workers.


def _lose(database: Database, record: StudyRecord, how: str, times: int) -> Lease:
    """So many workers die with the lease on slot 0; the last one's."""
    for index in range(times):
        name = f"{how}-{index}"
        lease = claimed(slots_of(database, record, name))
        assert lease.slot == 0
        if how == "expired":
            expire(database, lease)
        else:
            release_worker(database, record.study_id, name)
            release_worker(database, record.study_id, name)
    return lease


@pytest.mark.parametrize("how", ["expired", "given_back"])
def test_a_trial_that_kills_its_workers_fails(how: str, database: Database) -> None:
    record = new_study(database)
    lost = _lose(database, record, how, MOST_LOST)
    lease = claimed(slots_of(database, record, "heir"))
    assert (lease.slot, lease.number, lease.resumed) == (1, 1, False)
    slot = rows(database, t.hpo_slots)[0]
    reason = "lost: the worker died 5 times in a row during this trial without finishing an epoch"
    assert (slot["state"], slot["lost"], slot["failure"]) == ("done", MOST_LOST, reason)
    assert slot["finished_at"] is not None
    assert [trial["state"] for trial in rows(database, t.trials)] == ["FAIL", "RUNNING"]
    assert rows(database, t.trials)[0]["datetime_complete"] is not None
    (attribute,) = rows(database, t.trial_user_attributes)
    assert (attribute["trial_id"], attribute["key"]) == (lost.trial_id, "reason")
    assert json.loads(attribute["value_json"]) == reason
    with pytest.raises(LeaseLostError):
        slots_of(database, record, "revived").write(lost, some_writes(), COMPLETE)


def test_the_last_trial_may_kill_its_workers_too(database: Database) -> None:
    record = new_study(database, trials=1)
    _lose(database, record, "given_back", MOST_LOST)
    assert slots_of(database, record, "heir").claim() is NoSlot.FINISHED


@pytest.mark.parametrize("how", ["expired", "given_back"])
def test_lost_leases_do_not_count_while_epochs_are_reported(how: str, database: Database) -> None:
    record = new_study(database, trials=1)
    for epoch in range(1, 4):
        _lose(database, record, how, MOST_LOST - 1)
        alive = slots_of(database, record, f"alive-{epoch}")
        lease = claimed(alive)
        alive.write(lease, TrialWrites(values={epoch: 0.1}))
        assert rows(database, t.hpo_slots)[0]["lost"] == 0
        alive.release(lease)


def test_what_is_no_epoch_leaves_the_count(database: Database) -> None:
    record = new_study(database, trials=1)
    _lose(database, record, "expired", 2)
    slots = slots_of(database, record)
    lease = claimed(slots)
    slots.write(lease, TrialWrites(user_attrs={"host": "x"}))
    slots.renew(lease)
    assert slots.record_failure(lease, "crashes", 3)
    assert rows(database, t.hpo_slots)[0]["lost"] == 2


def test_leases_given_back_by_their_worker_do_not_count(database: Database) -> None:
    record = new_study(database, trials=1)
    for index in range(2 * MOST_LOST):
        slots = slots_of(database, record, f"leaves-{index}")
        slots.release(claimed(slots))
    assert rows(database, t.hpo_slots)[0]["lost"] == 0


def test_own_lost_claim_counts_once(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    record = new_study(database)
    _lose(database, record, "expired", 1)
    forgetful = _Forgetful(prepared_url)
    lease = claimed(slots_of(forgetful, record, "heir"))
    assert (lease.slot, lease.token) == (0, 3)
    assert rows(database, t.hpo_slots)[0]["lost"] == 1
    forgetful.close()


def test_trials_that_kill_their_workers_stop_the_study(database: Database) -> None:
    record = new_study(database, trials=4)
    slots = slots_of(database, record)
    for _ in range(2):
        for _ in range(MOST_LOST):
            expire(database, claimed(slots_of(database, record, worker_name())))
        found = slots.claim(most_alike=2)
        if isinstance(found, Lease):
            slots.release(found)
    assert found is NoSlot.STOPPED
    reason = open_study(database, "digits").reason
    assert reason is not None
    assert reason.startswith("the last 2 trials failed alike: lost: the worker died 5 times")
