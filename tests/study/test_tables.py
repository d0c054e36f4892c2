"""Optuna's tables, as they are declared here, against Optuna's own models."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from hpo.study import tables as t
from hpo.study.database import Database

_OPTUNA = models.BaseModel.metadata.tables


@pytest.mark.parametrize("table", t.optuna_metadata.sorted_tables, ids=lambda table: table.name)
def test_columns_are_optunas(table: sa.Table) -> None:
    theirs = _OPTUNA[table.name]
    assert list(table.columns.keys()) == list(theirs.columns.keys())
    for column in table.columns:
        same = theirs.columns[column.name]
        assert column.primary_key == same.primary_key
        assert type(column.type) is type(same.type), column
        ours: Any = column.type
        type_there: Any = same.type
        if isinstance(ours, sa.Enum):
            assert ours.name == type_there.name
            assert set(ours.enums) == set(type_there.enums)
        elif isinstance(ours, sa.String):
            assert ours.length == type_there.length


def test_states_are_optunas() -> None:
    assert set(t.TRIAL_STATES) == {state.name for state in TrialState}
    assert set(t.FINISHED_STATES) == {state.name for state in TrialState if state.is_finished()}


def test_clock_is_utc_and_runs(database: Database) -> None:
    query = sa.select(t.clock(), t.utc_now())
    seconds, moment = database.read(lambda connection: connection.execute(query).one())
    assert moment.tzinfo is None
    now = datetime.datetime.now(datetime.UTC)
    assert abs(seconds - now.timestamp()) < 5
    assert abs(moment.replace(tzinfo=datetime.UTC) - now) < datetime.timedelta(seconds=5)
