"""A frozen picture of a study for whoever watches it; reads few rows and imports no Optuna.

Only trials of slots are counted. Those that somebody has added with plain Optuna teach the sampler,
but they have no model that could be exported.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo.errors import NoUsableTrialError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.studies import STOPPED, TIMED_OUT, StudyRecord

_OURS = t.hpo_slots.c.trial_id == t.trials.c.trial_id
# A worker that has not been seen for so long is not counted as at work.
_AWAY_SECONDS = 60
_MOST_NUMBERS = 500


@dataclass(frozen=True)
class BestTrial:
    """The finished trial with the best value.

    Attributes:
        params: The sampled hyperparameters by name.
        attrs: Its user attributes: epochs, seconds, model parameters, device, host, ...
    """

    number: int
    state: str
    value: float
    params: dict[str, Any]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Where a study stands.

    Attributes:
        state: `running`, `stopped` or `finished`.
        timed_out: Whether its time limit, and nobody and nothing else, has stopped it.
        trials: The budget N; `finished` of them have ended.
        waiting: Begun trials that no worker holds at the moment.
        best: Value of the best trial, None while there is none.
        seconds: Since the study was created, until its last trial's end once it is finished.
        seconds_left: At the pace of the workers that are there; None before their first trial.
    """

    name: str
    metric: str
    direction: str
    state: str
    timed_out: bool
    reason: str | None
    trials: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    workers: int
    best: float | None
    best_number: int | None
    seconds: float
    seconds_left: float | None

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.failed


def take_snapshot(database: Database, record: StudyRecord) -> Snapshot:
    """The study as it stands now."""
    return database.read(lambda connection: _snapshot(connection, record))


def _snapshot(connection: sa.Connection, record: StudyRecord) -> Snapshot:
    study = connection.execute(
        sa.select(t.hpo_studies).where(t.hpo_studies.c.study_id == record.study_id)
    ).one()
    # A trial may end between two statements: in this order a finished study lacks none.
    leased, waiting, open_slots, last = _slots(connection, record.study_id)
    counts = _counts(connection, record.study_id)
    best = _best_row(connection, record)
    now = connection.execute(sa.select(t.clock())).scalar_one()
    finished = open_slots == 0
    timed_out = not finished and study.state == TIMED_OUT
    return Snapshot(
        name=record.name,
        metric=record.metric,
        direction=record.direction,
        state="finished" if finished else STOPPED if timed_out else study.state,
        timed_out=timed_out,
        reason=None if finished else study.reason,
        trials=study.trials,
        complete=counts.get("COMPLETE", 0),
        pruned=counts.get("PRUNED", 0),
        failed=counts.get("FAIL", 0),
        running=leased,
        waiting=waiting,
        workers=_workers(connection, record.study_id),
        best=None if best is None else best.value,
        best_number=None if best is None else best.number,
        seconds=(last if finished and last else now) - study.created_at,
        seconds_left=_seconds_left(connection, record.study_id, now, open_slots),
    )


def _counts(connection: sa.Connection, study_id: int) -> dict[str, int]:
    query = (
        sa.select(t.trials.c.state, sa.func.count())
        .join(t.hpo_slots, _OURS)
        .where(t.hpo_slots.c.study_id == study_id)
        .group_by(t.trials.c.state)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _slots(connection: sa.Connection, study_id: int) -> tuple[int, int, int, float | None]:
    slot = t.hpo_slots.c
    live = sa.and_(slot.state == "leased", slot.expires_at >= t.clock())
    begun = sa.and_(slot.state != "done", slot.trial_id.is_not(None))

    def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)

    query = sa.select(
        count(live),
        count(sa.and_(begun, sa.not_(live))),
        count(slot.state != "done"),
        sa.func.max(slot.finished_at),
    ).where(slot.study_id == study_id)
    leased, waiting, open_slots, last = connection.execute(query).one()
    return int(leased), int(waiting), int(open_slots), last


def _here(study_id: int) -> sa.ColumnElement[bool]:
    worker = t.hpo_workers.c
    seen = worker.seen_at > t.clock() - _AWAY_SECONDS
    return sa.and_(worker.study_id == study_id, worker.left_at.is_(None), seen)


def _workers(connection: sa.Connection, study_id: int) -> int:
    query = sa.select(sa.func.count()).select_from(t.hpo_workers).where(_here(study_id))
    return connection.execute(query).scalar_one()


def _seconds_left(
    connection: sa.Connection, study_id: int, now: float, open_slots: int
) -> float | None:
    # Since the workers of today began: a study may have lain idle for a night before.
    begun = sa.select(sa.func.min(t.hpo_workers.c.started_at)).where(_here(study_id))
    since = connection.execute(begun).scalar_one()
    if since is None or open_slots == 0:
        return None
    slot = t.hpo_slots.c
    ended = sa.and_(slot.study_id == study_id, slot.finished_at >= since)
    count = connection.execute(
        sa.select(sa.func.count()).select_from(t.hpo_slots).where(ended)
    ).scalar_one()
    return None if count == 0 else (now - since) / count * open_slots


def _best_query(record: StudyRecord) -> sa.Select[Any]:
    value = t.trial_values.c.value
    order = value.desc() if record.direction == "maximize" else value.asc()
    return (
        sa.select(t.trials.c.trial_id, t.trials.c.number, t.trials.c.state, value)
        .join(t.trial_values, t.trial_values.c.trial_id == t.trials.c.trial_id)
        .join(t.hpo_slots, _OURS)
        .where(
            t.hpo_slots.c.study_id == record.study_id,
            t.trials.c.state.in_(("COMPLETE", "PRUNED")),
            t.trial_values.c.value_type == "FINITE",
        )
        .order_by(order, t.trials.c.number)
    )


def _best_row(connection: sa.Connection, record: StudyRecord) -> sa.Row[Any] | None:
    return connection.execute(_best_query(record).limit(1)).one_or_none()


def best_numbers(
    database: Database, record: StudyRecord, count: int, among: Collection[int]
) -> list[int]:
    """Numbers of the best `count` trials of those numbers, the best one first."""
    query = _best_query(record).limit(count)
    # Few are looked up; for many it is quicker to look at all, and drivers limit how many.
    if len(among) <= _MOST_NUMBERS:
        query = query.where(t.hpo_slots.c.number.in_(sorted(among)))
    return [row.number for row in database.read(lambda c: c.execute(query).all())]


def best_trial(database: Database, record: StudyRecord) -> BestTrial:
    """The best finished trial, a pruned one included.

    Raises:
        NoUsableTrialError: No finished trial has a value.
    """
    return database.read(lambda connection: _best_trial(connection, record))


def _best_trial(connection: sa.Connection, record: StudyRecord) -> BestTrial:
    row = _best_row(connection, record)
    if row is None:
        raise NoUsableTrialError(_without_value(connection, record))
    return read_trial(connection, row.trial_id)


def _without_value(connection: sa.Connection, record: StudyRecord) -> str:
    """Says that no trial has a value, and what most of them ended with."""
    words = f"no finished trial of the study {record.name!r} has a value yet"
    attr = t.trial_user_attributes.c
    reasons = (
        sa.select(attr.value_json, sa.func.count())
        .join(t.trials, t.trials.c.trial_id == attr.trial_id)
        .join(t.hpo_slots, _OURS)
        .where(t.hpo_slots.c.study_id == record.study_id, attr.key == "reason")
        .group_by(attr.value_json)
        .order_by(sa.func.count().desc(), attr.value_json)
        .limit(1)
    )
    most = connection.execute(reasons).one_or_none()
    if most is None:
        return f"{words}; see hpo status {record.name}"
    return f"{words}; {most[1]} of them ended with: {json.loads(most[0])}"


def read_trial(connection: sa.Connection, trial_id: int) -> BestTrial:
    """One trial with its parameters and attributes; it must have a value."""
    query = (
        sa.select(t.trials.c.number, t.trials.c.state, t.trial_values.c.value)
        .join(t.trial_values, t.trial_values.c.trial_id == t.trials.c.trial_id)
        .where(t.trials.c.trial_id == trial_id)
    )
    number, state, value = connection.execute(query).one()
    params = connection.execute(
        sa.select(t.trial_params)
        .where(t.trial_params.c.trial_id == trial_id)
        .order_by(t.trial_params.c.param_id)
    )
    attrs = connection.execute(
        sa.select(t.trial_user_attributes).where(t.trial_user_attributes.c.trial_id == trial_id)
    )
    return BestTrial(
        number=number,
        state=state,
        value=value,
        params=dict(_own(p.param_name, p.param_value, p.distribution_json) for p in params),
        attrs={a.key: json.loads(a.value_json) for a in attrs},
    )


def _own(stored_name: str, value: float, distribution_json: str) -> tuple[str, Any]:
    """A parameter's name and value as the model was built with."""
    # Here, because a status does without the packages that the space needs.
    from hpo.space.mirrors import mirrored, own_name

    distribution = json.loads(distribution_json)
    external, name = _external(value, distribution), own_name(stored_name)
    if name is None:
        return stored_name, external
    attributes = distribution["attributes"]
    return name, mirrored(external, attributes["low"], attributes["high"])


def _external(value: float, distribution: dict[str, Any]) -> Any:
    """What Optuna's distribution would make of its internal value, without importing Optuna."""
    if distribution["name"] == "CategoricalDistribution":
        return distribution["attributes"]["choices"][int(value)]
    return int(value) if distribution["name"] == "IntDistribution" else value


def slot_of(database: Database, record: StudyRecord, number: int) -> int:
    """The slot that a trial of this number belongs to."""
    slot = t.hpo_slots.c
    query = sa.select(slot.slot).where(slot.study_id == record.study_id, slot.number == number)
    found: int = database.read(lambda connection: connection.execute(query).scalar_one())
    return found
