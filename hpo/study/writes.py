"""What is written of a trial, in the form in which Optuna keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> None:
    """Inserts rows; a row whose `keys` exist is overwritten."""
    others = [name for name in rows[0] if name not in keys]
    if connection.dialect.name == "mysql":
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
