"""What a worker writes of its trial as one statement, on PostgreSQL.

The server is waited for once and not four to seven times, because a single statement commits by
itself. Its first part is the fence: it touches the slot's row under the lease's token, and
everything else is written only if it did. Rows go as arrays, so that the text of a statement, which
the server keeps prepared, does not depend on how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from hpo.study import tables as t
from hpo.study.writes import TrialWrites, stored_value

__all__ = ["end_parameters", "write_at_once"]

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_CLOCK = str(t.clock().compile(dialect=_DIALECT))
_UTC_NOW = str(t.utc_now().compile(dialect=_DIALECT))

_RENEWED = f"expires_at = {_CLOCK} + CAST(:seconds AS double precision)"
_DONE = (
    f"state = 'done', expires_at = NULL, finished_at = {_CLOCK}, failure = CAST(:failure AS text)"
)
_ENDED = f"""ended AS (
    UPDATE trials SET state = CAST(:state AS trialstate), datetime_complete = {_UTC_NOW}
    FROM fence WHERE trials.trial_id = :trial AND trials.state = 'RUNNING' RETURNING trials.trial_id
)"""  # noqa: S608 - every name is one of this module's; values go as parameters
# Whoever ended the trial from outside, in the dashboard perhaps, has told its value too.
_TOLD = """told AS (
    INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial_id, 0, CAST(:value AS double precision), CAST(:kind AS trialvaluetype) FROM ended
    ON CONFLICT (trial_id, objective)
    DO UPDATE SET value = excluded.value, value_type = excluded.value_type
)"""
_KIND = "trialintermediatevaluetype"
# Of each table: its columns beside the trial's key, the first of them unique in the trial, the
# types of the arrays, and those that are cast on their way.
_TABLES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], dict[str, str]]] = {
    "params": (
        "trial_params",
        ("param_name", "param_value", "distribution_json"),
        ("text", "double precision", "text"),
        {},
    ),
    "values": (
        "trial_intermediate_values",
        ("step", "intermediate_value", "intermediate_value_type"),
        ("integer", "double precision", "text"),
        {"intermediate_value_type": _KIND},
    ),
    "user_attrs": ("trial_user_attributes", ("key", "value_json"), ("text", "text"), {}),
    "system_attrs": ("trial_system_attributes", ("key", "value_json"), ("text", "text"), {}),
}


def write_at_once(
    connection: sa.Connection,
    lease: dict[str, Any],
    trial_id: int,
    writes: TrialWrites,
    end: dict[str, Any] | None = None,
) -> tuple[bool, bool]:
    """Writes what was gathered and renews the lease or, with `end`, ends trial and slot.

    Args:
        lease: `its_study`, `its_slot`, `its_token`, `its_worker`, and `seconds` until it runs out.
        end: What `end_parameters` gives.

    Returns:
        Whether the lease was held, without which nothing was written, and whether the trial has
        ended with it.
    """
    rows = _rows(writes)
    asked = lease | (end or {}) | {"trial": trial_id}
    for part, columns in rows.items():
        asked |= {f"{part}_{place}": column for place, column in enumerate(columns)}
    statement = _statement(tuple(rows), end is not None, end is not None and "value" in end)
    held, ended = connection.execute(statement, asked).one()
    return bool(held), bool(ended)


def end_parameters(state: str, value: float | None, failure: str | None) -> dict[str, Any]:
    """How a trial has ended, as `write_at_once` takes it."""
    end: dict[str, Any] = {"state": state, "failure": failure}
    if value is not None:
        end["value"], end["kind"] = stored_value(value)
    return end


def _rows(writes: TrialWrites) -> dict[str, list[Sequence[Any]]]:
    """The columns of what there is to write, by part."""
    rows: dict[str, list[Sequence[Any]]] = {}
    if writes.params:
        # Numbers of one kind: an integer's internal value may be either.
        params = [{**param, "param_value": float(param["param_value"])} for param in writes.params]
        names = _TABLES["params"][1]
        rows["params"] = [[param[name] for param in params] for name in names]
    if writes.values:
        stored = [stored_value(float(value)) for value in writes.values.values()]
        numbers, kinds = zip(*stored, strict=True)
        rows["values"] = [list(writes.values), list(numbers), list(kinds)]
    for part, attrs in (("user_attrs", writes.user_attrs), ("system_attrs", writes.system_attrs)):
        if attrs:
            rows[part] = [list(attrs), [json.dumps(value) for value in attrs.values()]]
    return rows


@lru_cache(maxsize=64)
def _statement(parts: tuple[str, ...], ends: bool, has_value: bool) -> sa.TextClause:
    slot = _DONE if ends else _RENEWED
    # A reported epoch is a sign of life.
    slot += ", lost = 0" if "values" in parts else ""
    fence = f"""fence AS (
        UPDATE hpo_slots SET {slot} WHERE study_id = :its_study AND slot = :its_slot
        AND token = :its_token AND worker = :its_worker AND state = 'leased' RETURNING slot
    )"""  # noqa: S608
    steps = [fence, *(_insert(part) for part in parts)]
    steps += [_ENDED] if ends else []
    steps += [_TOLD] if has_value else []
    ended = "(SELECT count(*) FROM ended)" if ends else "0"
    return sa.text(f"WITH {', '.join(steps)} SELECT (SELECT count(*) FROM fence), {ended}")  # noqa: S608


def _insert(part: str) -> str:
    table, columns, types, casts = _TABLES[part]
    key, *others = columns
    arrays = (f"CAST(:{part}_{place} AS {kind}[])" for place, kind in enumerate(types))
    chosen = (f"CAST({name} AS {casts[name]})" if name in casts else name for name in columns)
    changes = (f"{name} = excluded.{name}" for name in others)
    return f"""{part}_written AS (
        INSERT INTO {table} (trial_id, {", ".join(columns)})
        SELECT CAST(:trial AS integer), {", ".join(chosen)}
        FROM fence, unnest({", ".join(arrays)}) WITH ORDINALITY
        AS given ({", ".join(columns)}, place) ORDER BY place
        ON CONFLICT (trial_id, {key}) DO UPDATE SET {", ".join(changes)}
    )"""  # noqa: S608
