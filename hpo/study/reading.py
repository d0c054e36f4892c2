"""From rows to Optuna's FrozenTrial: whole trials, or just what a sampler looks at."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from hpo.study import tables as t

__all__ = ["parsed_distribution", "read_sampled", "read_trials"]

_INFINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}
# Drivers limit how many values one statement may carry.
_CHUNK = 500


@lru_cache(maxsize=4096)
def parsed_distribution(text: str) -> BaseDistribution:
    """The distribution, one object for all trials that have the same: nobody changes them."""
    return json_to_distribution(text)


def read_trials(connection: sa.Connection, trial_ids: Sequence[int]) -> list[FrozenTrial]:
    """The trials with everything that belongs to them, one statement a table and chunk."""
    trials: list[FrozenTrial] = []
    for chunk in _chunks(trial_ids):
        found = _with_params(connection, chunk)
        _add_reports(found, _rows(connection, t.trial_intermediate_values, chunk, "step"))
        for table, name in (
            (t.trial_user_attributes, "user_attrs"),
            (t.trial_system_attributes, "system_attrs"),
        ):
            _add_attributes(found, name, _rows(connection, table, chunk, "key"))
        trials += found.values()
    return trials


def read_sampled(connection: sa.Connection, trial_ids: Sequence[int]) -> list[FrozenTrial]:
    """The trials with what Optuna's TPE looks at.

    That is parameters and value, of pruned trials the last report, and of system attributes
    constraints and what the sampler has noted for itself.
    """
    trials: list[FrozenTrial] = []
    for chunk in _chunks(trial_ids):
        found = _with_params(connection, chunk)
        pruned = [i for i, trial in found.items() if trial.state is TrialState.PRUNED]
        if pruned:
            _add_reports(found, connection.execute(_last_reports(pruned)))
        attr = t.trial_system_attributes.c
        noted = sa.or_(attr.key.like("constraints%"), attr.key.like("tpe:%"))
        query = sa.select(t.trial_system_attributes).where(attr.trial_id.in_(chunk), noted)
        _add_attributes(found, "system_attrs", connection.execute(query.order_by(attr.key)))
        trials += found.values()
    return trials


def _last_reports(trial_ids: Sequence[int]) -> sa.Select[Any]:
    report = t.trial_intermediate_values
    last = (
        sa.select(report.c.trial_id, sa.func.max(report.c.step).label("step"))
        .where(report.c.trial_id.in_(trial_ids))
        .group_by(report.c.trial_id)
        .subquery()
    )
    same = sa.and_(report.c.trial_id == last.c.trial_id, report.c.step == last.c.step)
    return sa.select(report).join(last, same)


def _chunks(trial_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(trial_ids), _CHUNK):
        yield trial_ids[start : start + _CHUNK]


def _rows(
    connection: sa.Connection, table: sa.Table, trial_ids: Sequence[int], order: str
) -> sa.CursorResult[Any]:
    query = sa.select(table).where(table.c.trial_id.in_(trial_ids)).order_by(table.c[order])
    return connection.execute(query)


def _with_params(connection: sa.Connection, trial_ids: Sequence[int]) -> dict[int, FrozenTrial]:
    """Trials by their key, with state, value and parameters."""
    rows = _rows(connection, t.trials, trial_ids, "trial_id")
    found = {row.trial_id: _bare(row) for row in rows}
    param = t.trial_params.c
    query = (
        sa.select(param.trial_id, param.param_name, param.param_value, param.distribution_json)
        .where(param.trial_id.in_(trial_ids))
        .order_by(param.param_id)
    )
    for trial_id, name, value, text in connection.execute(query):
        distribution = parsed_distribution(text)
        trial = found[trial_id]
        trial._distributions[name] = distribution
        trial._params[name] = distribution.to_external_repr(value)
    for row in _rows(connection, t.trial_values, trial_ids, "objective"):
        found[row.trial_id].values = [_INFINITE.get(row.value_type, row.value)]
    return found


def _add_reports(found: dict[int, FrozenTrial], rows: sa.CursorResult[Any]) -> None:
    for row in rows:
        value = _INFINITE.get(row.intermediate_value_type, row.intermediate_value)
        found[row.trial_id].intermediate_values[row.step] = value


def _add_attributes(found: dict[int, FrozenTrial], name: str, rows: sa.CursorResult[Any]) -> None:
    for row in rows:
        getattr(found[row.trial_id], name)[row.key] = json.loads(row.value_json)


def _bare(row: sa.Row[Any]) -> FrozenTrial:
    return FrozenTrial(
        number=row.number,
        state=TrialState[row.state],
        value=None,
        datetime_start=_local(row.datetime_start),
        datetime_complete=_local(row.datetime_complete),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=row.trial_id,
    )


def _local(moment: datetime.datetime | None) -> datetime.datetime | None:
    """Optuna keeps naive UTC and hands out naive local time."""
    if moment is None:
        return None
    return moment.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
