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


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> None:
    """Inserts rows; a row whose `keys` exist is overwritten."""
    others = tuple(name for name in rows[0] if name not in keys)
    connection.execute(_upsert(connection.dialect.name, table, tuple(keys), others), list(rows))


@lru_cache(maxsize=256)
def _upsert(
    dialect: str, table: sa.Table, keys: tuple[str, ...], others: tuple[str, ...]
) -> sa.Insert:
    # Kept, because to build the statement takes longer than to run it.
    if dialect == "mysql":
        from sqlalchemy.dialects import mysql

        into = mysql.insert(table)
        return into.on_duplicate_key_update({name: into.inserted[name] for name in others})
    from sqlalchemy.dialects import postgresql, sqlite

    onto = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table)
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
