"""What a claim asks the database: the slot to take and the number of the next trial.

Each question reads a few rows of an index however many slots and trials there are. Statements are
built once, because to build one takes longer than to run it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from hpo.study import tables as t

__all__ = ["find_slot", "has_slots", "next_number"]

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


def _begun() -> sa.Select[Any]:
    slot = t.hpo_slots.c
    # A worker has one lease at most: its own is a claim whose answer got lost.
    own = sa.and_(slot.state == _LEASED, slot.worker == sa.bindparam("claimer"))
    expired = slot.expires_at < t.clock()
    free = sa.or_(slot.state == _FREE, own, expired)
    found = _slots(slot.state.in_((_FREE, _LEASED)), slot.trial_id.is_not(None), free)
    return found.order_by(sa.case((own, 0), else_=1), slot.slot).with_for_update(skip_locked=True)


_BEGUN = _begun()
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
