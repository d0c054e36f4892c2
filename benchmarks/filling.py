"""Fills a study with finished trials, as if workers had run them; nearly all of it inside SQL.

Five float parameters between 0 and 1, ten reports a trial and the attributes that a worker leaves.
The value is the negative squared distance from 0.3, so a sampler has something to learn.
"""

from __future__ import annotations

import datetime
import json

import sqlalchemy as sa
from optuna.distributions import FloatDistribution, distribution_to_json

from hpo.study import tables as t
from hpo.study.database import Database

PARAMETERS = tuple(f"p{index}" for index in range(5))
EPOCHS = 10
ATTRIBUTES: dict[str, object] = {
    "model_parameters": 85_130,
    "device": "CPU",
    "host": "benchmark",
    "epochs": EPOCHS,
    "best_epoch": EPOCHS,
    "seconds": 12.345,
    "checkpoint": "benchmark/trial-00000/checkpoint-00010-1.npz",
}
_CHUNK = 10_000
_DISTRIBUTION = distribution_to_json(FloatDistribution(0.0, 1.0))


def value_of(params: dict[str, float]) -> float:
    """What a trial with these parameters reaches."""
    return -sum((value - 0.3) ** 2 for value in params.values())


def fill(
    database: Database, study_id: int, count: int, *, slots: bool = True, rungs: bool = False
) -> None:
    """Adds `count` complete trials; with `slots` they take the study's first slots.

    With `rungs` they have the marks that successive halving leaves at epochs 1, 3 and 9.
    """

    def work(connection: sa.Connection) -> None:
        first = _insert_trials(connection, study_id, count)
        filled = f"FROM trials WHERE study_id = {study_id} AND trial_id >= {first}"
        _insert_params(connection, filled)
        _insert_values(connection, filled)
        _insert_attributes(connection, filled)
        if rungs:
            _insert_marks(connection, study_id, first)
        if slots:
            _end_slots(connection, study_id, first, count)

    if count:
        database.write(work)
        if database.dialect == "postgresql":
            # Autovacuum would do so within a minute, in the middle of a measurement.
            with database.engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            ) as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")


def _insert_trials(connection: sa.Connection, study_id: int, count: int) -> int:
    ours = t.trials.c.study_id == study_id
    before = connection.execute(
        sa.select(sa.func.count()).select_from(t.trials).where(ours)
    ).scalar_one()
    # Naive UTC, as Optuna keeps it.
    moment = datetime.datetime(2026, 1, 1)
    for start in range(before, before + count, _CHUNK):
        rows = [
            {
                "study_id": study_id,
                "number": number,
                "state": "COMPLETE",
                "datetime_start": moment,
                "datetime_complete": moment,
            }
            for number in range(start, min(start + _CHUNK, before + count))
        ]
        connection.execute(t.trials.insert(), rows)
    first = sa.select(sa.func.min(t.trials.c.trial_id)).where(ours, t.trials.c.number >= before)
    return int(connection.execute(first).scalar_one())


def _insert_params(connection: sa.Connection, filled: str) -> None:
    """Fractions of multiples of irrational numbers: evenly spread, and the same in every run."""
    for index, name in enumerate(PARAMETERS):
        step = (2 + index) ** 0.5
        connection.execute(
            sa.text(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
                f"SELECT trial_id, '{name}', number * {step} - floor(number * {step}), "
                f":distribution {filled}"
            ),
            {"distribution": _DISTRIBUTION},
        )


def _insert_values(connection: sa.Connection, filled: str) -> None:
    connection.exec_driver_sql(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) "
        "SELECT trial_id, 0, -sum((param_value - 0.3) * (param_value - 0.3)), 'FINITE' "
        f"FROM trial_params WHERE trial_id IN (SELECT trial_id {filled}) GROUP BY trial_id"
    )
    for epoch in range(1, EPOCHS + 1):
        connection.exec_driver_sql(
            "INSERT INTO trial_intermediate_values "
            "(trial_id, step, intermediate_value, intermediate_value_type) "
            f"SELECT trial_id, {epoch}, value - 0.05 * {EPOCHS - epoch}, 'FINITE' "
            f"FROM trial_values WHERE trial_id IN (SELECT trial_id {filled})"
        )


def _insert_attributes(connection: sa.Connection, filled: str) -> None:
    for key, value in ATTRIBUTES.items():
        connection.execute(
            sa.text(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                f"SELECT trial_id, '{key}', :value {filled}"
            ),
            {"value": json.dumps(value)},
        )


def _insert_marks(connection: sa.Connection, study_id: int, first: int) -> None:
    report, attr = t.trial_intermediate_values.c, t.trial_system_attributes
    for rung in range(3):
        marks = (
            sa.select(
                report.trial_id,
                sa.literal(f"completed_rung_{rung}"),
                sa.cast(report.intermediate_value, sa.Text().with_variant(sa.CHAR(40), "mysql")),
            )
            .join(t.trials, t.trials.c.trial_id == report.trial_id)
            .where(t.trials.c.study_id == study_id, t.trials.c.trial_id >= first)
            .where(report.step == 3**rung)
        )
        connection.execute(attr.insert().from_select(["trial_id", "key", "value_json"], marks))


def _end_slots(connection: sa.Connection, study_id: int, first: int, count: int) -> None:
    """The slots of the same numbers are done; `fill` comes before any trial of a worker."""
    slot = t.hpo_slots.c
    done = {"state": "done", "token": 1, "worker": "filler", "finished_at": 0.0}
    connection.execute(
        t.hpo_slots.update()
        .where(slot.study_id == study_id, slot.slot < count)
        .values(**done, number=slot.slot, trial_id=slot.slot + first)
    )
