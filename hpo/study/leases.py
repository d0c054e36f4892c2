"""Slots and leases: who may write what.

A study of N trials has N slots. A worker claims a slot for a limited time: that is its lease. The
claim, the creation of the trial and their link are one transaction; so are the result of a trial
and the end of its slot. There is no moment at which a killed worker leaves an orphan.

Every claim raises the slot's token. A write first renews the lease under its token, in its own
transaction; when that touches no row, another worker owns the slot and nothing is written. Time
is the database's, so a worker's clock never matters.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hpo.errors import LeaseLostError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.studies import RUNNING, STOPPED


@dataclass(frozen=True)
class Lease:
    """The right to run one slot's trial and to write its results, until it runs out.

    Attributes:
        slot: 0 .. N-1.
        token: Rises with every claim of the slot.
        trial_id: Optuna's key of the trial.
        number: Optuna's number of the trial.
        resumed: Whether another lease on this trial went before.
    """

    slot: int
    token: int
    trial_id: int
    number: int
    resumed: bool


class NoSlot(enum.Enum):
    """Why there was nothing to claim."""

    WAIT = "every open slot is leased to another worker"
    FINISHED = "every trial is finished"
    STOPPED = "the study is stopped"


@dataclass
class TrialWrites:
    """What is to be written of a trial with the next transaction, in order."""

    params: list[dict[str, Any]] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.values or self.user_attrs or self.system_attrs)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: COMPLETE, PRUNED or FAIL, its value, and why it failed."""

    state: str
    value: float | None = None
    failure: str | None = None


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

    def claim(self) -> Lease | NoSlot:
        """A lease on a begun trial that nobody works on, else on a new one."""
        return self.database.write(self._claim)

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
            slot.study_id == self.study_id, slot.state != "done", slot.number.is_not(None)
        )
        return set(self.database.read(lambda c: c.execute(query).scalars().all()))

    def release(self, lease: Lease) -> None:
        """Gives the slot back at once; its trial goes on from there with the next worker."""
        free = {"state": "free", "expires_at": None}
        self.database.write(
            lambda c: c.execute(t.hpo_slots.update().where(*self._own(lease)).values(free))
        )

    def write(
        self,
        lease: Lease,
        writes: TrialWrites,
        outcome: Outcome | None = None,
        patience: float | None = None,
    ) -> None:
        """Writes what a trial has gathered and, with an outcome, ends trial and slot.

        Raises:
            LeaseLostError: Another worker owns the slot; nothing was written.
        """

        def work(connection: sa.Connection) -> None:
            if self._fence(connection, lease):
                _apply(connection, lease.trial_id, writes)
                if outcome is not None:
                    self._finish(connection, lease, outcome)

        self.database.write(work, patience)

    def record_failure(self, lease: Lease, kind: str, allowed: int) -> bool:
        """Counts a failed attempt; True when the slot was given back for another one.

        Args:
            kind: `exceptions` or `crashes`.
            allowed: How many of the kind may be tried again.
        """

        def work(connection: sa.Connection) -> bool:
            self._fence(connection, lease)
            row = self._own(lease)
            column = t.hpo_slots.c[kind]
            count = connection.execute(sa.select(column).where(*row)).scalar_one() + 1
            again = bool(count <= allowed)
            values: dict[str, Any] = {kind: count}
            if again:
                values |= {"state": "free", "expires_at": None}
            connection.execute(t.hpo_slots.update().where(*row).values(values))
            return again

        return self.database.write(work)

    def stop_after_equal_failures(self, limit: int, reason: str) -> None:
        """Stops the study when its last `limit` trials failed alike; `reason` is the last one's."""

        def work(connection: sa.Connection) -> None:
            query = (
                sa.select(t.hpo_slots.c.failure)
                .where(t.hpo_slots.c.study_id == self.study_id, t.hpo_slots.c.state == "done")
                .order_by(t.hpo_slots.c.finished_at.desc())
                .limit(limit)
            )
            failures = list(connection.execute(query).scalars())
            if len(failures) < limit or failures[0] is None or len(set(failures)) > 1:
                return
            self._stop(connection, f"the last {limit} trials failed alike: {reason}")

        self.database.write(work)

    def _claim(self, connection: sa.Connection) -> Lease | NoSlot:
        study = self._lock_study(connection)
        if study.state != RUNNING:
            return NoSlot.STOPPED
        row = self._find(connection)
        if row is None:
            return NoSlot.WAIT if self._open_slots(connection) else NoSlot.FINISHED
        if row.trial_id is None and study.late:
            self._stop(connection, "the time limit of the study was reached")
            return NoSlot.STOPPED
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
        }
        connection.execute(t.hpo_slots.update().where(*self._at(row.slot)).values(values))
        return Lease(row.slot, row.token + 1, trial_id, number, resumed=row.trial_id is not None)

    def _lock_study(self, connection: sa.Connection) -> Any:
        # Optuna numbers trials under a lock on the study's row; claims must queue with it.
        study = t.studies.c.study_id == self.study_id
        connection.execute(sa.select(t.studies.c.study_id).where(study).with_for_update())
        late = sa.func.coalesce(t.hpo_studies.c.deadline < t.clock(), sa.false()).label("late")
        query = sa.select(t.hpo_studies.c.state, late)
        return connection.execute(query.where(t.hpo_studies.c.study_id == self.study_id)).one()

    def _find(self, connection: sa.Connection) -> Any:
        slot = t.hpo_slots.c
        free = sa.or_(
            slot.state == "free",
            # A worker has one lease at most: its own is a claim whose answer got lost.
            sa.and_(
                slot.state == "leased",
                sa.or_(slot.expires_at < t.clock(), slot.worker == self.worker),
            ),
        )
        query = (
            sa.select(slot.slot, slot.token, slot.trial_id, slot.number)
            .where(slot.study_id == self.study_id, free)
            .order_by(sa.case((slot.trial_id.is_(None), 1), else_=0), slot.slot)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return connection.execute(query).one_or_none()

    def _open_slots(self, connection: sa.Connection) -> bool:
        slot = t.hpo_slots.c
        query = sa.select(slot.slot).where(slot.study_id == self.study_id, slot.state != "done")
        return connection.execute(query.limit(1)).first() is not None

    def _create_trial(self, connection: sa.Connection) -> tuple[int, int]:
        ours = t.trials.c.study_id == self.study_id
        number = connection.execute(
            sa.select(sa.func.count()).select_from(t.trials).where(ours)
        ).scalar_one()
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
        held = (t.hpo_slots.c.token == lease.token, t.hpo_slots.c.state == "leased")
        return (*self._at(lease.slot), *held)

    def _fence(self, connection: sa.Connection, lease: Lease) -> bool:
        """Renews the lease; False when this very lease has ended its slot before."""
        renewal = t.hpo_slots.update().where(*self._own(lease))
        until = t.clock() + self.lease_seconds
        if connection.execute(renewal.values(expires_at=until)).rowcount == 1:
            return True
        query = sa.select(t.hpo_slots.c.token, t.hpo_slots.c.state).where(*self._at(lease.slot))
        row = connection.execute(query).one_or_none()
        if row is not None and row.token == lease.token and row.state == "done":
            return False
        raise LeaseLostError(
            f"the lease on slot {lease.slot} (trial {lease.number}) ran out and was taken over"
        )

    def _finish(self, connection: sa.Connection, lease: Lease, outcome: Outcome) -> None:
        running = sa.and_(t.trials.c.trial_id == lease.trial_id, t.trials.c.state == "RUNNING")
        connection.execute(
            t.trials.update()
            .where(running)
            .values(state=outcome.state, datetime_complete=t.utc_now())
        )
        if outcome.value is not None:
            value, kind = _stored(outcome.value)
            row = {"trial_id": lease.trial_id, "objective": 0, "value": value, "value_type": kind}
            upsert(connection, t.trial_values, [row], ("trial_id", "objective"))
        done = {
            "state": "done",
            "expires_at": None,
            "finished_at": t.clock(),
            "failure": outcome.failure,
        }
        connection.execute(t.hpo_slots.update().where(*self._own(lease)).values(done))

    def _stop(self, connection: sa.Connection, reason: str) -> None:
        study = t.hpo_studies.c.study_id == self.study_id
        values = {"state": STOPPED, "reason": reason}
        connection.execute(t.hpo_studies.update().where(study).values(values))


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> None:
    """Inserts rows; a row whose `keys` exist is overwritten."""
    others = [name for name in rows[0] if name not in keys]
    if connection.dialect.name in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        into = mysql.insert(table)
        statement: sa.Insert = into.on_duplicate_key_update({n: into.inserted[n] for n in others})
    else:
        from sqlalchemy.dialects import postgresql, sqlite

        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        onto = insert(table)
        statement = onto.on_conflict_do_update(
            index_elements=list(keys), set_={name: onto.excluded[name] for name in others}
        )
    connection.execute(statement, list(rows))


def _apply(connection: sa.Connection, trial_id: int, writes: TrialWrites) -> None:
    if writes.params:
        rows = [{"trial_id": trial_id, **param} for param in writes.params]
        upsert(connection, t.trial_params, rows, ("trial_id", "param_name"))
    if writes.values:
        rows = [_intermediate(trial_id, step, value) for step, value in writes.values.items()]
        upsert(connection, t.trial_intermediate_values, rows, ("trial_id", "step"))
    for table, attrs in (
        (t.trial_user_attributes, writes.user_attrs),
        (t.trial_system_attributes, writes.system_attrs),
    ):
        if attrs:
            rows = [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in attrs.items()
            ]
            upsert(connection, table, rows, ("trial_id", "key"))


def _intermediate(trial_id: int, step: int, value: float) -> dict[str, Any]:
    stored, kind = _stored(value)
    return {
        "trial_id": trial_id,
        "step": step,
        "intermediate_value": stored,
        "intermediate_value_type": kind,
    }


def _stored(value: float) -> tuple[float | None, str]:
    """A number as Optuna keeps it: SQL databases do not agree on infinities and NaN."""
    if math.isnan(value):
        return None, "NAN"
    if math.isinf(value):
        return None, "INF_POS" if value > 0 else "INF_NEG"
    return value, "FINITE"
