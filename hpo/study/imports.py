"""Finished trials that come from elsewhere: the sampler learns from them, no slot is theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json

from hpo.spec.models import Parameter, Scalar
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.studies import StudyRecord
from hpo.study.suggest import distribution_of, stored
from hpo.study.writes import TrialWrites, apply_writes

IMPORTED_FROM = "imported_from"


@dataclass(frozen=True)
class ImportedTrial:
    """A finished trial of another tool, as the study would have sampled it.

    Attributes:
        source: Where it comes from; a source is imported once.
    """

    source: str
    value: float
    params: dict[str, tuple[Parameter, Scalar]]


def off_range(trial: ImportedTrial) -> str | None:
    """The first parameter whose value is none that the study's sampler could suggest."""
    for name, (parameter, value) in trial.params.items():
        distribution = distribution_of(parameter)
        _, kept = stored(name, parameter, value)
        if not distribution._contains(distribution.to_internal_repr(kept)):
            return name
    return None


def add_imported(database: Database, record: StudyRecord, trials: list[ImportedTrial]) -> int:
    """Adds those that are not there yet as complete trials; how many."""

    def work(connection: sa.Connection) -> int:
        # Trials are numbered under a lock on the study, by Optuna and by claims too.
        ours = t.studies.c.study_id == record.study_id
        connection.execute(sa.select(t.studies.c.study_id).where(ours).with_for_update())
        known = _sources(connection, record.study_id)
        new = [trial for trial in trials if trial.source not in known]
        for trial in new:
            _add(connection, record.study_id, trial)
        return len(new)

    return database.write(work)


def _sources(connection: sa.Connection, study_id: int) -> set[str]:
    attr = t.trial_user_attributes.c
    query = (
        sa.select(attr.value_json)
        .join(t.trials, t.trials.c.trial_id == attr.trial_id)
        .where(t.trials.c.study_id == study_id, attr.key == IMPORTED_FROM)
    )
    return {json.loads(text) for text in connection.execute(query).scalars()}


def _add(connection: sa.Connection, study_id: int, trial: ImportedTrial) -> None:
    count = sa.select(sa.func.count()).select_from(t.trials).where(t.trials.c.study_id == study_id)
    inserted = connection.execute(
        t.trials.insert().values(
            study_id=study_id,
            number=connection.execute(count).scalar_one(),
            state="COMPLETE",
            datetime_start=t.utc_now(),
            datetime_complete=t.utc_now(),
        )
    )
    assert inserted.inserted_primary_key is not None
    trial_id = inserted.inserted_primary_key[0]
    params = [_param(name, *each) for name, each in trial.params.items()]
    attrs = {IMPORTED_FROM: trial.source}
    apply_writes(connection, trial_id, TrialWrites(params=params, user_attrs=attrs))
    connection.execute(
        t.trial_values.insert().values(
            trial_id=trial_id, objective=0, value=trial.value, value_type="FINITE"
        )
    )


def _param(name: str, parameter: Parameter, value: Scalar) -> dict[str, Any]:
    distribution = distribution_of(parameter)
    kept_name, kept = stored(name, parameter, value)
    return {
        "param_name": kept_name,
        "param_value": distribution.to_internal_repr(kept),
        "distribution_json": distribution_to_json(distribution),
    }
