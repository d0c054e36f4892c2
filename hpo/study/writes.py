"""What is written of a trial, in the form in which Optuna keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from hpo.study import tables as t


@dataclass
class TrialWrites:
    """What is to be written of a trial with the next transaction, in order."""

    params: list[dict[str, Any]] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.values or self.user_attrs or self.system_attrs)

    @property
    def is_one_report(self) -> bool:
        others = self.params or self.user_attrs or self.system_attrs
        return len(self.values) == 1 and not others


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> None:
    """Inserts rows; a row whose `keys` exist is overwritten."""
    others = tuple(name for name in rows[0] if name not in keys)
    statement = _upsert(connection.dialect.name, table, tuple(keys), others)
    # A list, even of one row, goes the longer way of many.
    connection.execute(statement, list(rows) if len(rows) > 1 else rows[0])


@lru_cache(maxsize=256)
def _upsert(
    dialect: str, table: sa.Table, keys: tuple[str, ...], others: tuple[str, ...]
) -> sa.Insert:
    # Kept, because to build the statement takes longer than to run it.
    if dialect == "mysql":
        from sqlalchemy.dialects import mysql

        into = mysql.insert(table).inline()
        return into.on_duplicate_key_update({name: into.inserted[name] for name in others})
    from sqlalchemy.dialects import postgresql, sqlite

    # Inline: nobody asks for the keys of the new rows.
    onto = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table).inline()
    return onto.on_conflict_do_update(
        index_elements=list(keys), set_={name: onto.excluded[name] for name in others}
    )


def apply_writes(connection: sa.Connection, trial_id: int, writes: TrialWrites) -> None:
    """Writes what was gathered; what is there already is overwritten."""
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


def report_under(fence: sa.Update) -> sa.Insert:
    """The statement that writes one report if `fence` touches its row; PostgreSQL only.

    Its parameters are those of the fence and of `report_parameters`.
    """
    from sqlalchemy.dialects import postgresql

    table = t.trial_intermediate_values
    renewed = fence.returning(sa.literal(1)).cte("renewed")
    columns = ("trial_id", "step", "intermediate_value", "intermediate_value_type")
    row = sa.select(*(_typed(table.c[name]) for name in columns)).select_from(renewed)
    report = postgresql.insert(table).inline().add_cte(renewed).from_select(columns, row)
    written = report.on_conflict_do_update(
        index_elements=["trial_id", "step"],
        set_={name: report.excluded[name] for name in columns[2:]},
    )
    # Of an INSERT SQLAlchemy would forget it.
    return written.execution_options(preserve_rowcount=True)


def _typed(column: sa.Column[Any]) -> sa.Cast[Any]:
    # Cast, because in a SELECT nothing else says what type a parameter has. And named unlike any
    # column: SQLAlchemy would have the fence set a column of its table that is called the same.
    return sa.cast(sa.bindparam(f"its_{column.name}", type_=column.type), column.type)


def report_parameters(trial_id: int, step: int, value: float) -> dict[str, Any]:
    """What `report_under` takes beside the fence's parameters."""
    row = _intermediate(trial_id, step, value)
    return {f"its_{name}": each for name, each in row.items()}


def _intermediate(trial_id: int, step: int, value: float) -> dict[str, Any]:
    stored, kind = stored_value(value)
    return {
        "trial_id": trial_id,
        "step": step,
        "intermediate_value": stored,
        "intermediate_value_type": kind,
    }


def stored_value(value: float) -> tuple[float | None, str]:
    """A number as Optuna keeps it: SQL databases do not agree on infinities and NaN."""
    if math.isnan(value):
        return None, "NAN"
    if math.isinf(value):
        return None, "INF_POS" if value > 0 else "INF_NEG"
    return value, "FINITE"
