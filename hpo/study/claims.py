"""What a claim asks the database: the slot to take and the number of the next trial.

Each question reads a few rows of an index however many slots and trials there are. Statements are
built once, because to build one takes longer than to run it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from hpo.study import tables as t

__all__ = ["find_slot", "has_slots", "next_number", "take_new"]

_CLAIMED = ("slot", "state", "token", "worker", "trial_id", "number", "lost")
_OPEN = ("free", "leased")
# Written out and not sent as parameters: PostgreSQL plans a statement that comes often without
# looking at these, and then does not know that few slots are free or leased.
_FREE, _LEASED = (sa.literal_column(f"'{state}'", sa.String) for state in _OPEN)


def find_slot(connection: sa.Connection, study_id: int, worker: str) -> Any:
    """The slot to claim: the worker's own, else one whose trial has begun, else a new one."""
    ours = {"study": study_id, "claimer": worker}
    begun = connection.execute(_BEGUN, ours).one_or_none()
    return begun or connection.execute(_NEW, ours).one_or_none()


def take_new(connection: sa.Connection, study_id: int, worker: str, seconds: float) -> Any:
    """Begins a trial in a new slot as one statement, under a lock on the study; PostgreSQL only.

    None when there is no new slot, or one whose trial has begun goes before: see `find_slot`.
    """
    asked = {"study": study_id, "claimer": worker, "seconds": seconds}
    return connection.execute(_TAKE_NEW, asked).one_or_none()


def has_slots(connection: sa.Connection, study_id: int, *states: str) -> bool:
    """Whether a slot is in one of the states; without any: whether one is not done."""
    found = connection.execute(_ANY, {"study": study_id, "states": states or _OPEN})
    return found.first() is not None


def next_number(connection: sa.Connection, study_id: int) -> int:
    """The number of the study's next trial, under a lock on the study.

    Optuna counts the trials for it. They are numbered in the order of their keys, without gaps.
    """
    last = connection.execute(_LAST_NUMBER, {"study": study_id}).scalar_one_or_none()
    return 0 if last is None else last + 1


def _slots(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    slot = t.hpo_slots.c
    columns = (slot[name] for name in _CLAIMED)
    return sa.select(*columns).where(slot.study_id == sa.bindparam("study"), *conditions).limit(1)


def _own() -> sa.ColumnElement[bool]:
    # A worker has one lease at most: its own is a claim whose answer got lost.
    slot = t.hpo_slots.c
    return sa.and_(slot.state == _LEASED, slot.worker == sa.bindparam("claimer"))


def _begun() -> sa.Select[Any]:
    slot = t.hpo_slots.c
    free = sa.or_(slot.state == _FREE, _own(), slot.expires_at < t.clock())
    return _slots(slot.state.in_((_FREE, _LEASED)), slot.trial_id.is_not(None), free)


_BEGUN = (
    _begun()
    .order_by(sa.case((_own(), 0), else_=1), t.hpo_slots.c.slot)
    .with_for_update(skip_locked=True)
)
_NEW = (
    _slots(t.hpo_slots.c.state == _FREE, t.hpo_slots.c.trial_id.is_(None))
    # All alike in trial_id: it says to PostgreSQL's planner that the index has this order. By slot
    # alone it would go through the primary key, past every slot that is done.
    .order_by(t.hpo_slots.c.trial_id, t.hpo_slots.c.slot)
    .with_for_update(skip_locked=True)
)
_ANY = (
    sa.select(t.hpo_slots.c.slot)
    .where(
        t.hpo_slots.c.study_id == sa.bindparam("study"),
        t.hpo_slots.c.state.in_(sa.bindparam("states", expanding=True, literal_execute=True)),
    )
    .limit(1)
)
_LAST_NUMBER = (
    sa.select(t.trials.c.number)
    .where(t.trials.c.study_id == sa.bindparam("study"))
    .order_by(t.trials.c.trial_id.desc())
    .limit(1)
)


def _take_new() -> sa.Select[Any]:
    trial, slot = t.trials.c, t.hpo_slots.c
    study = sa.bindparam("study", type_=sa.Integer)
    # Looks only, and locks nothing: whoever takes it goes the longer way.
    begun = _begun().exists()
    new = _NEW.where(~begun).cte("new")
    number = sa.func.coalesce(_LAST_NUMBER.scalar_subquery() + 1, 0)
    row = sa.select(study, number, sa.cast("RUNNING", trial.state.type), t.utc_now())
    created = (
        t.trials.insert()
        .from_select(["study_id", "number", "state", "datetime_start"], row.select_from(new))
        .returning(trial.trial_id, trial.number, trial.datetime_start)
        .cte("created")
    )

    def only(column: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        # Of one row, or of none.
        return sa.select(column).scalar_subquery()

    began = only(created.c.datetime_start).label("began")
    taken = (
        t.hpo_slots.update()
        .where(slot.study_id == study, slot.slot == only(new.c.slot))
        .values(
            state="leased",
            token=slot.token + 1,
            worker=sa.bindparam("claimer", type_=sa.String),
            expires_at=t.clock() + sa.bindparam("seconds", type_=sa.Double),
            trial_id=only(created.c.trial_id),
            number=only(created.c.number),
        )
        .returning(slot.slot, slot.token, slot.trial_id, slot.number, began)
        .cte("taken")
    )
    return sa.select(taken)


_TAKE_NEW = _take_new()
