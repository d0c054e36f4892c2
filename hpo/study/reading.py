"""From rows to Optuna's FrozenTrial: whole trials, or just what a sampler looks at."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from hpo.study import tables as t
from hpo.study.looks import chunks

__all__ = [
    "INFINITE",
    "SampledTrial",
    "new_trial",
    "parsed_distribution",
    "read_first_distributions",
    "read_new_trial",
    "read_sampled",
    "read_trials",
]

# What databases have no number for, by the words in Optuna's columns.
INFINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}
# Nearly every parameter of a study is one of its first trials'.
_FIRST = 100


def _of(table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.trial_id.in_(sa.bindparam("ids", expanding=True))


def _ordered(table: sa.Table, order: str) -> sa.Select[Any]:
    return sa.select(table).where(_of(table)).order_by(table.c[order])


def _last_reports() -> sa.Select[Any]:
    report = t.trial_intermediate_values
    last = (
        sa.select(report.c.trial_id, sa.func.max(report.c.step).label("step"))
        .where(_of(report))
        .group_by(report.c.trial_id)
        .subquery()
    )
    same = sa.and_(report.c.trial_id == last.c.trial_id, report.c.step == last.c.step)
    return sa.select(report).join(last, same)


def _distributions() -> tuple[sa.Select[Any], sa.Select[Any]]:
    param, trial = t.trial_params.c, t.trials.c
    ours = trial.study_id == sa.bindparam("study")
    first = sa.select(trial.trial_id).where(ours).order_by(trial.trial_id).limit(_FIRST).subquery()
    pairs = sa.select(param.param_name, param.distribution_json)
    # The last one first, so that of each name the first one stays.
    some = pairs.join(first, first.c.trial_id == param.trial_id).order_by(param.param_id.desc())
    one = pairs.join(t.trials, trial.trial_id == param.trial_id).where(
        ours, param.param_name == sa.bindparam("name")
    )
    return some, one.order_by(param.param_id).limit(1)


# Built once: to build a statement takes longer than to run it.
_FIRST_DISTRIBUTIONS, _FIRST_DISTRIBUTION = _distributions()
_TRIALS = (
    sa.select(t.trials, t.trial_values.c.value, t.trial_values.c.value_type)
    .outerjoin(t.trial_values, t.trial_values.c.trial_id == t.trials.c.trial_id)
    .where(_of(t.trials))
    .order_by(t.trials.c.trial_id)
)
_PARAMS = (
    sa.select(
        *(
            t.trial_params.c[n]
            for n in ("trial_id", "param_name", "param_value", "distribution_json")
        )
    )
    .where(_of(t.trial_params))
    .order_by(t.trial_params.c.param_id)
)
_REPORTS = _ordered(t.trial_intermediate_values, "step")
_LAST_REPORTS = _last_reports()
_ATTRIBUTES = {
    "user_attrs": _ordered(t.trial_user_attributes, "key"),
    "system_attrs": _ordered(t.trial_system_attributes, "key"),
}
# Constraints, and what the sampler has noted for itself.
_LOOKED_AT = ("constraints", "tpe:")
_NOTED = _ATTRIBUTES["system_attrs"].where(
    sa.or_(*(t.trial_system_attributes.c.key.like(f"{key}%") for key in _LOOKED_AT))
)


# Of a trial that is not read yet.
_NOTHING: Any = MappingProxyType({})


class SampledTrial(FrozenTrial):
    """A trial that TPE goes through at each suggestion, hundreds of them; not to be changed.

    What it looks at are plain attributes: Optuna's are properties, and the constraints one that
    searches all system attributes.
    """

    number = -1
    value: float | None = None
    params = _NOTHING
    distributions = _NOTHING
    system_attrs = _NOTHING
    constraints = _NOTHING

    @classmethod
    def of(cls, trial: FrozenTrial) -> SampledTrial:
        """The trial with what TPE looks at, and of a pruned one's reports the last alone."""
        pruned = trial.state is TrialState.PRUNED
        sampled = cls(
            number=trial.number,
            state=trial.state,
            value=None,
            values=trial.values,
            datetime_start=None,
            datetime_complete=None,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={},
            system_attrs={k: v for k, v in trial.system_attrs.items() if k.startswith(_LOOKED_AT)},
            intermediate_values=dict(sorted(trial.intermediate_values.items())[-1:])
            if pruned
            else {},
            trial_id=trial._trial_id,
        )
        sampled.number, sampled.value = trial.number, trial.value
        sampled.params, sampled.distributions = trial.params, trial.distributions
        sampled.system_attrs = sampled._system_attrs
        sampled.constraints = trial.constraints
        return sampled


@lru_cache(maxsize=4096)
def parsed_distribution(text: str) -> BaseDistribution:
    """The distribution, one object for all trials that have the same: nobody changes them."""
    return json_to_distribution(text)


def read_first_distributions(
    connection: sa.Connection, study: int, name: str | None = None
) -> dict[str, BaseDistribution]:
    """The first distribution of each parameter in the study's first trials.

    Args:
        name: Of one parameter, to look for among all trials. That may go through the parameters
            of the whole database.
    """
    asked: dict[str, Any] = {"study": study}
    if name is None:
        rows = connection.execute(_FIRST_DISTRIBUTIONS, asked)
    else:
        rows = connection.execute(_FIRST_DISTRIBUTION, asked | {"name": name})
    return {found: parsed_distribution(text) for found, text in rows}


def read_new_trial(connection: sa.Connection, trial_id: int) -> FrozenTrial:
    """A trial to which nothing has been written yet."""
    return _bare(connection.execute(_TRIALS, {"ids": [trial_id]}).one())


def new_trial(trial_id: int, number: int, began: datetime.datetime) -> FrozenTrial:
    """The same from what its claim knows; `began` as Optuna keeps it, in naive UTC."""
    return _trial(trial_id, number, TrialState.RUNNING, began, None)


def read_trials(connection: sa.Connection, trial_ids: Sequence[int]) -> list[FrozenTrial]:
    """The trials with everything that belongs to them, one statement a table and chunk."""
    trials: list[FrozenTrial] = []
    for chunk in chunks(trial_ids):
        found = _with_params(connection, chunk)
        _add_reports(found, connection.execute(_REPORTS, {"ids": chunk}))
        for name, query in _ATTRIBUTES.items():
            _add_attributes(found, name, connection.execute(query, {"ids": chunk}))
        trials += found.values()
    return trials


def read_sampled(connection: sa.Connection, trial_ids: Sequence[int]) -> list[SampledTrial]:
    """The trials with what Optuna's TPE looks at.

    That is parameters and value, of pruned trials the last report, and of system attributes
    constraints and what the sampler has noted for itself.
    """
    trials: list[SampledTrial] = []
    for chunk in chunks(trial_ids):
        found = _with_params(connection, chunk)
        pruned = [i for i, trial in found.items() if trial.state is TrialState.PRUNED]
        if pruned:
            _add_reports(found, connection.execute(_LAST_REPORTS, {"ids": pruned}))
        _add_attributes(found, "system_attrs", connection.execute(_NOTED, {"ids": chunk}))
        trials += map(SampledTrial.of, found.values())
    return trials


def _with_params(connection: sa.Connection, trial_ids: Sequence[int]) -> dict[int, FrozenTrial]:
    """Trials by their key, with state, value and parameters."""
    found = {}
    for row in connection.execute(_TRIALS, {"ids": trial_ids}):
        trial = found[row.trial_id] = _bare(row)
        if row.value_type is not None:
            trial.values = [INFINITE.get(row.value_type, row.value)]
    for trial_id, name, value, text in connection.execute(_PARAMS, {"ids": trial_ids}):
        distribution = parsed_distribution(text)
        trial = found[trial_id]
        trial.distributions[name] = distribution
        trial.params[name] = distribution.to_external_repr(value)
    return found


def _add_reports(found: dict[int, FrozenTrial], rows: sa.CursorResult[Any]) -> None:
    for row in rows:
        value = INFINITE.get(row.intermediate_value_type, row.intermediate_value)
        found[row.trial_id].intermediate_values[row.step] = value


def _add_attributes(found: dict[int, FrozenTrial], name: str, rows: sa.CursorResult[Any]) -> None:
    for row in rows:
        getattr(found[row.trial_id], name)[row.key] = json.loads(row.value_json)


def _bare(row: sa.Row[Any]) -> FrozenTrial:
    state = TrialState[row.state]
    return _trial(row.trial_id, row.number, state, row.datetime_start, row.datetime_complete)


def _trial(
    trial_id: int,
    number: int,
    state: TrialState,
    start: datetime.datetime | None,
    complete: datetime.datetime | None,
) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        datetime_start=_local(start),
        datetime_complete=_local(complete),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )


def _local(moment: datetime.datetime | None) -> datetime.datetime | None:
    """Optuna keeps naive UTC and hands out naive local time."""
    if moment is None:
        return None
    return moment.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
