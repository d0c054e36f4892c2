"""Slots and leases: who may write what.

A study of N trials has N slots. A worker claims a slot for a limited time: that is its lease. The
claim, the creation of the trial and their link are one transaction; so are the result of a trial
and the end of its slot. There is no moment at which a killed worker leaves an orphan.

Every claim raises the slot's token. A write first renews the lease under its token, in its own
transaction; when that touches no row, another worker owns the slot and nothing is written. Time
is the database's, so a worker's clock never matters.
"""

from __future__ import annotations

import datetime
import enum
import math
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from hpo.errors import LeaseLostError, StudyNotFoundError
from hpo.study import tables as t
from hpo.study.claims import find_slot, has_slots, next_number, take_new
from hpo.study.database import Database
from hpo.study.studies import RUNNING, STOPPED, TIMED_OUT
from hpo.study.writes import (
    TrialWrites,
    apply_writes,
    report_parameters,
    report_under,
    stored_value,
    upsert,
)

__all__ = ["MOST_LOST", "Lease", "NoSlot", "Outcome", "Slots", "TrialWrites", "release_worker"]


_FREE: dict[str, Any] = {"state": "free", "expires_at": None}
# A trial that has cost so many workers in a row, without one epoch in between, kills them.
MOST_LOST = 5
_LOST = (
    f"lost: the worker died {MOST_LOST} times in a row during this trial without finishing an epoch"
)


# Built once: every write begins with it, and to build a statement takes longer than to run it.
_RENEW = (
    t.hpo_slots.update()
    .where(
        t.hpo_slots.c.study_id == sa.bindparam("its_study"),
        t.hpo_slots.c.slot == sa.bindparam("its_slot"),
        t.hpo_slots.c.token == sa.bindparam("its_token"),
        # SQLite gives the keys of a deleted study to the next one, whose tokens begin anew.
        t.hpo_slots.c.worker == sa.bindparam("its_worker"),
        t.hpo_slots.c.state == "leased",
    )
    .values(expires_at=t.clock() + sa.bindparam("seconds", type_=sa.Double))
)
# Optuna numbers trials under a lock on the study's row; claims must queue with it.
_LOCK_STUDY = (
    sa.select(
        t.hpo_studies.c.state,
        sa.func.coalesce(t.hpo_studies.c.deadline < t.clock(), sa.false()).label("late"),
    )
    .join(t.studies, t.studies.c.study_id == t.hpo_studies.c.study_id)
    .where(t.studies.c.study_id == sa.bindparam("study"))
    .with_for_update()
)
_RENEW_ALIVE = _RENEW.values(lost=0)
_REPORT_ALONE = report_under(_RENEW_ALIVE)


@dataclass(frozen=True)
class Lease:
    """The right to run one slot's trial and to write its results, until it runs out.

    Attributes:
        slot: 0 .. N-1.
        token: Rises with every claim of the slot.
        trial_id: Optuna's key of the trial.
        number: Optuna's number of the trial.
        resumed: Whether another lease on this trial went before.
        began: When the trial did, as Optuna keeps it; None when the claim was not told.
    """

    slot: int
    token: int
    trial_id: int
    number: int
    resumed: bool
    began: datetime.datetime | None = field(default=None, compare=False)


class NoSlot(enum.Enum):
    """Why there was nothing to claim."""

    WAIT = "what is left to do is leased to other workers"
    FINISHED = "every trial is finished"
    STOPPED = "the study is stopped"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: COMPLETE, PRUNED or FAIL, its value, and why it failed.

    As with Optuna's `tell`, NaN is no value, and without a value no trial is complete: it failed.
    """

    state: str
    value: float | None = None
    failure: str | None = None

    def as_told(self) -> Outcome:
        value = None if self.value is None or math.isnan(self.value) else self.value
        if value is None and self.state == "COMPLETE":
            return Outcome("FAIL", None, self.failure or "the trial ended without a value")
        return Outcome(self.state, value, self.failure)


class Slots:
    """The slots of one study, as one worker sees them.

    Thread-safe. Every method is one transaction that may be repeated without harm, also when the
    first try was committed and only its acknowledgement was lost.

    Args:
        worker: Unique name of the worker; it holds at most one lease at a time.
        lease_seconds: How long a lease lasts after each claim, renewal or write.
    """

    def __init__(
        self, database: Database, study_id: int, worker: str, lease_seconds: float
    ) -> None:
        self.database = database
        self.study_id = study_id
        self.worker = worker
        self.lease_seconds = lease_seconds

    def claim(self, most_alike: int | None = None) -> Lease | NoSlot:
        """A lease on a begun trial that nobody works on, else on a new one.

        A trial whose lease was lost MOST_LOST times in a row without an epoch fails on the way.

        Args:
            most_alike: That failure stops the study when it is the last of so many alike.
        """
        return self.database.write(lambda connection: self._claim(connection, most_alike))

    def renew(self, lease: Lease) -> None:
        """Prolongs the lease. Raises LeaseLostError when it is another worker's by now."""
        self.database.write(lambda connection: self._fence(connection, lease))

    def study_runs(self) -> bool:
        """Whether the study may go on: nobody and nothing has stopped it."""
        query = sa.select(t.hpo_studies.c.state).where(t.hpo_studies.c.study_id == self.study_id)
        return bool(self.database.read(lambda c: c.execute(query).scalar_one()) == RUNNING)

    def unfinished_numbers(self) -> set[int]:
        """Numbers of the trials that have begun and not ended."""
        slot = t.hpo_slots.c
        query = sa.select(slot.number).where(
            slot.study_id == self.study_id,
            # Not "all but done", which no index answers.
            slot.state.in_(("free", "leased")),
            slot.trial_id.is_not(None),
        )
        return set(self.database.read(lambda c: c.execute(query).scalars().all()))

    def release(self, lease: Lease, patience: float | None = None) -> None:
        """Gives the slot back at once; its trial goes on from there with the next worker."""
        given_back = t.hpo_slots.update().where(*self._own(lease)).values(_FREE)
        self.database.write(lambda connection: connection.execute(given_back), patience)

    def write(
        self,
        lease: Lease,
        writes: TrialWrites,
        outcome: Outcome | None = None,
        patience: float | None = None,
    ) -> bool:
        """Writes what a trial has gathered and, with an outcome, ends trial and slot.

        A reported epoch is a sign of life: leases that were lost before it count no more.

        Returns:
            Whether the trial has ended with this very outcome.

        Raises:
            LeaseLostError: Another worker owns the slot; nothing was written.
            StudyNotFoundError: The study was deleted meanwhile.
        """
        try:
            return self._write(lease, writes, outcome, patience)
        except IntegrityError:
            # A row that belongs to a trial that is not there any more.
            self.database.read(self._lock_study)
            raise

    def _write(
        self, lease: Lease, writes: TrialWrites, outcome: Outcome | None, patience: float | None
    ) -> bool:
        as_told = None if outcome is None else outcome.as_told()
        if self.database.dialect == "postgresql":
            held, ended = self._write_at_once(lease, writes, as_told, patience)
            if held:
                return ended
            # Otherwise the lease is gone, and the longer way tells how.

        def work(connection: sa.Connection) -> bool:
            if not self._fence(connection, lease, alive=bool(writes.values)):
                return False
            apply_writes(connection, lease.trial_id, writes)
            return as_told is not None and self._finish(connection, lease, as_told)

        return self.database.write(work, patience)

    def _write_at_once(
        self, lease: Lease, writes: TrialWrites, outcome: Outcome | None, patience: float | None
    ) -> tuple[bool, bool]:
        """Writes as one statement: whether the lease was held, and whether the trial has ended."""
        from hpo.study.at_once import end_parameters, write_at_once

        own, end = self._renewal(lease), None
        if outcome is not None:
            failure = _storable(outcome.failure)
            end = end_parameters(outcome.state, outcome.value, failure)

        def work(connection: sa.Connection) -> tuple[bool, bool]:
            if end is None and writes.is_one_report:
                # Most writes are one: a statement for a single row takes two thirds of the time.
                ((step, value),) = writes.values.items()
                asked = own | report_parameters(lease.trial_id, step, value)
                return connection.execute(_REPORT_ALONE, asked).rowcount == 1, False
            return write_at_once(connection, own, lease.trial_id, writes, end)

        return self.database.write_at_once(work, patience)

    def record_failure(self, lease: Lease, kind: str, allowed: int) -> bool:
        """Counts a failed attempt; True when the slot was given back for another one.

        While the answer is False, the trial is still this lease's and waits for its outcome.

        Args:
            kind: `exceptions` or `crashes`.
            allowed: How many of the kind may be tried again.
        """

        def work(connection: sa.Connection) -> bool:
            if self._stands_at(connection, lease, "free"):
                return True
            if not self._fence(connection, lease):
                return False
            row = self._own(lease)
            column = t.hpo_slots.c[kind]
            count = connection.execute(sa.select(column).where(*row)).scalar_one() + 1
            again = bool(count <= allowed)
            values = {kind: count} | (_FREE if again else {})
            connection.execute(t.hpo_slots.update().where(*row).values(values))
            return again

        return self.database.write(work)

    def stop_after_equal_failures(self, limit: int, reason: str) -> None:
        """Stops the study when its last `limit` trials failed alike; `reason` is the last one's.

        Trials that had ended when the study was resumed do not count.
        """
        self.database.write(lambda connection: self._stop_if_alike(connection, limit, reason))

    def _stop_if_alike(self, connection: sa.Connection, limit: int, reason: str) -> None:
        query = (
            sa.select(t.hpo_slots.c.failure)
            .where(t.hpo_slots.c.study_id == self.study_id, t.hpo_slots.c.state == "done")
            .order_by(t.hpo_slots.c.finished_at.desc(), t.hpo_slots.c.number.desc())
            .limit(limit)
        )
        failures = list(connection.execute(query).scalars())
        if len(failures) < limit or failures[0] is None or len(set(failures)) > 1:
            return
        self._stop(connection, f"the last {limit} trials failed alike: {reason}")

    def _claim(self, connection: sa.Connection, most_alike: int | None) -> Lease | NoSlot:
        study = self._lock_study(connection)
        runs = study.state == RUNNING
        if runs and not study.late and self.database.dialect == "postgresql":
            new = take_new(connection, self.study_id, self.worker, self.lease_seconds)
            if new is not None:
                return Lease(new.slot, new.token, new.trial_id, new.number, False, new.began)
        row = find_slot(connection, self.study_id, self.worker) if runs else None
        if row is None:
            if not has_slots(connection, self.study_id):
                return NoSlot.FINISHED
            return NoSlot.WAIT if runs else NoSlot.STOPPED
        if row.trial_id is None and study.late:
            return self._too_late(connection)
        lost = row.lost + int(row.state == "leased" and row.worker != self.worker)
        lease = self._take(connection, row, lost)
        if lost < MOST_LOST:
            return lease
        self._give_up(connection, lease, most_alike)
        return self._claim(connection, most_alike)

    def _take(self, connection: sa.Connection, row: Any, lost: int) -> Lease:
        trial_id, number = row.trial_id, row.number
        if trial_id is None:
            trial_id, number = self._create_trial(connection)
        values = {
            "state": "leased",
            "token": row.token + 1,
            "worker": self.worker,
            "expires_at": t.clock() + self.lease_seconds,
            "trial_id": trial_id,
            "number": number,
            "lost": lost,
        }
        connection.execute(t.hpo_slots.update().where(*self._at(row.slot)).values(values))
        return Lease(row.slot, row.token + 1, trial_id, number, resumed=row.trial_id is not None)

    def _give_up(self, connection: sa.Connection, lease: Lease, most_alike: int | None) -> None:
        apply_writes(connection, lease.trial_id, TrialWrites(user_attrs={"reason": _LOST}))
        self._finish(connection, lease, Outcome("FAIL", None, _LOST))
        if most_alike is not None:
            self._stop_if_alike(connection, most_alike, _LOST)

    def _too_late(self, connection: sa.Connection) -> NoSlot:
        """No trial begins after the deadline; those that have begun are seen to their end first."""
        if has_slots(connection, self.study_id, "leased"):
            return NoSlot.WAIT
        self._stop(connection, "the time limit of the study was reached", TIMED_OUT)
        return NoSlot.STOPPED

    def _lock_study(self, connection: sa.Connection) -> Any:
        study = connection.execute(_LOCK_STUDY, {"study": self.study_id}).one_or_none()
        if study is None:
            raise StudyNotFoundError("the study was deleted from the database; submit it again")
        return study

    def _create_trial(self, connection: sa.Connection) -> tuple[int, int]:
        number = next_number(connection, self.study_id)
        inserted = connection.execute(
            t.trials.insert().values(
                study_id=self.study_id, number=number, state="RUNNING", datetime_start=t.utc_now()
            )
        )
        assert inserted.inserted_primary_key is not None
        return inserted.inserted_primary_key[0], number

    def _at(self, slot: int) -> tuple[sa.ColumnElement[bool], ...]:
        return (t.hpo_slots.c.study_id == self.study_id, t.hpo_slots.c.slot == slot)

    def _own(self, lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
        slot = t.hpo_slots.c
        held = (slot.token == lease.token, slot.worker == self.worker, slot.state == "leased")
        return (*self._at(lease.slot), *held)

    def _fence(self, connection: sa.Connection, lease: Lease, *, alive: bool = False) -> bool:
        """Renews the lease; False when this very lease has ended its slot before.

        Args:
            alive: Leases that were lost before count no more.
        """
        renewed = connection.execute(_RENEW_ALIVE if alive else _RENEW, self._renewal(lease))
        if renewed.rowcount == 1:
            return True
        if self._stands_at(connection, lease, "done"):
            return False
        raise LeaseLostError(
            f"the lease on slot {lease.slot} (trial {lease.number}) ran out and was taken over"
        )

    def _renewal(self, lease: Lease) -> dict[str, Any]:
        return {
            "its_study": self.study_id,
            "its_slot": lease.slot,
            "its_token": lease.token,
            "its_worker": self.worker,
            "seconds": self.lease_seconds,
        }

    def _stands_at(self, connection: sa.Connection, lease: Lease, state: str) -> bool:
        """Whether nobody has claimed the slot since and it is in that state."""
        slot = t.hpo_slots.c
        query = sa.select(slot.token, slot.worker, slot.state).where(*self._at(lease.slot))
        row = connection.execute(query).one_or_none()
        return row is not None and tuple(row) == (lease.token, self.worker, state)

    def _finish(self, connection: sa.Connection, lease: Lease, outcome: Outcome) -> bool:
        """Ends trial and slot; False when the trial had ended before."""
        running = sa.and_(t.trials.c.trial_id == lease.trial_id, t.trials.c.state == "RUNNING")
        end = {"state": outcome.state, "datetime_complete": t.utc_now()}
        ended = connection.execute(t.trials.update().where(running).values(end)).rowcount == 1
        # Whoever ended the trial from outside, in the dashboard perhaps, has told its value too.
        if ended and outcome.value is not None:
            value, kind = stored_value(outcome.value)
            row = {"trial_id": lease.trial_id, "objective": 0, "value": value, "value_type": kind}
            upsert(connection, t.trial_values, [row], ("trial_id", "objective"))
        done = {
            "state": "done",
            "expires_at": None,
            "finished_at": t.clock(),
            "failure": _storable(outcome.failure),
        }
        connection.execute(t.hpo_slots.update().where(*self._own(lease)).values(done))
        return ended

    def _stop(self, connection: sa.Connection, reason: str, state: str = STOPPED) -> None:
        study = t.hpo_studies.c
        running = sa.and_(study.study_id == self.study_id, study.state == RUNNING)
        values = {"state": state, "reason": _storable(reason)}
        connection.execute(t.hpo_studies.update().where(running).values(values))


def release_worker(database: Database, study_id: int, worker: str) -> None:
    """Gives back what a dead worker has leased, before its lease runs out.

    For whoever knows for certain that the worker's process is gone. The lease counts as lost.
    """
    slot = t.hpo_slots.c
    own = (slot.study_id == study_id, slot.state == "leased", slot.worker == worker)
    given_back = t.hpo_slots.update().where(*own).values(_FREE | {"lost": slot.lost + 1})
    database.write(lambda connection: connection.execute(given_back))


def _storable(text: str | None) -> str | None:
    """Messages may hold anything; PostgreSQL takes no NUL, and no driver a lone surrogate."""
    return text and text.replace("\0", "").encode(errors="replace").decode()
