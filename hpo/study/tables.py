"""The tables: Optuna's own, as far as they are used here, and the ones beside them.

Optuna's tables are declared again instead of imported, because `hpo status` must answer without
importing Optuna. `tests/study/test_tables.py` holds them against Optuna's models.
"""

from __future__ import annotations

import datetime

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

optuna_metadata = sa.MetaData()
metadata = sa.MetaData()

TRIAL_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")
FINISHED_STATES = ("COMPLETE", "PRUNED", "FAIL")
_VALUE_TYPES = ("FINITE", "INF_POS", "INF_NEG")

studies = sa.Table(
    "studies",
    optuna_metadata,
    sa.Column("study_id", sa.Integer, primary_key=True),
    sa.Column("study_name", sa.String(512)),
)
study_directions = sa.Table(
    "study_directions",
    optuna_metadata,
    sa.Column("study_direction_id", sa.Integer, primary_key=True),
    sa.Column("direction", sa.Enum("NOT_SET", "MINIMIZE", "MAXIMIZE", name="studydirection")),
    sa.Column("study_id", sa.Integer),
    sa.Column("objective", sa.Integer),
)


def _attributes(owner: str) -> sa.Table:
    kind, _, _ = owner.partition("_")
    return sa.Table(
        f"{owner}_attributes",
        optuna_metadata,
        sa.Column(f"{owner}_attribute_id", sa.Integer, primary_key=True),
        sa.Column(f"{kind}_id", sa.Integer),
        sa.Column("key", sa.String(512)),
        sa.Column("value_json", sa.Text),
    )


study_user_attributes = _attributes("study_user")
study_system_attributes = _attributes("study_system")
trial_user_attributes = _attributes("trial_user")
trial_system_attributes = _attributes("trial_system")

trials = sa.Table(
    "trials",
    optuna_metadata,
    sa.Column("trial_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer),
    sa.Column("study_id", sa.Integer),
    sa.Column("state", sa.Enum(*TRIAL_STATES, name="trialstate")),
    sa.Column("datetime_start", sa.DateTime),
    sa.Column("datetime_complete", sa.DateTime),
)
trial_params = sa.Table(
    "trial_params",
    optuna_metadata,
    sa.Column("param_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("param_name", sa.String(512)),
    sa.Column("param_value", sa.Float(53)),
    sa.Column("distribution_json", sa.Text),
)
trial_values = sa.Table(
    "trial_values",
    optuna_metadata,
    sa.Column("trial_value_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("objective", sa.Integer),
    sa.Column("value", sa.Float(53)),
    sa.Column("value_type", sa.Enum(*_VALUE_TYPES, name="trialvaluetype")),
)
trial_intermediate_values = sa.Table(
    "trial_intermediate_values",
    optuna_metadata,
    sa.Column("trial_intermediate_value_id", sa.Integer, primary_key=True),
    sa.Column("trial_id", sa.Integer),
    sa.Column("step", sa.Integer),
    sa.Column("intermediate_value", sa.Float(53)),
    sa.Column(
        "intermediate_value_type", sa.Enum(*_VALUE_TYPES, "NAN", name="trialintermediatevaluetype")
    ),
)

# The text may be long, and MySQL's plain TEXT ends at 64 KiB.
_LONG_TEXT = sa.Text().with_variant(sa.Text(2**32 - 1), "mysql")

hpo_studies = sa.Table(
    "hpo_studies",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("spec", _LONG_TEXT, nullable=False),
    sa.Column("facts", _LONG_TEXT, nullable=False),
    sa.Column("trials", sa.Integer, nullable=False),
    sa.Column("metric", sa.String(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", _LONG_TEXT),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("deadline", sa.Double),
)
hpo_slots = sa.Table(
    "hpo_slots",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(200)),
    sa.Column("expires_at", sa.Double),
    sa.Column("trial_id", sa.Integer),
    sa.Column("number", sa.Integer),
    sa.Column("exceptions", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    # Leases on its trial that were lost in a row, with no epoch reported in between.
    sa.Column("lost", sa.Integer, nullable=False),
    sa.Column("failure", _LONG_TEXT),
    sa.Column("finished_at", sa.Double),
    # What a claim looks for: a begun trial that is free, else the first slot without a trial.
    sa.Index("ix_hpo_slots_claim", "study_id", "state", "trial_id", "slot"),
    sa.Index("ix_hpo_slots_number", "study_id", "number"),
)
hpo_workers = sa.Table(
    "hpo_workers",
    metadata,
    sa.Column("worker", sa.String(200), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("left_at", sa.Double),
)


class clock(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """The database's own clock: seconds since 1970 in UTC, so no time zone can matter."""

    type = sa.Double()
    inherit_cache = True
    name = "clock"


@compiles(clock, "sqlite")
def _clock_sqlite(_element: clock, _compiler: SQLCompiler, **_: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(clock, "postgresql")
def _clock_postgresql(_element: clock, _compiler: SQLCompiler, **_: object) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(clock, "mysql")
def _clock_mysql(_element: clock, _compiler: SQLCompiler, **_: object) -> str:
    # Right because the session's time zone is UTC. sysdate() moves on while a statement waits.
    return "CAST(unix_timestamp(sysdate(6)) AS double)"


class utc_now(FunctionElement[datetime.datetime]):  # noqa: N801
    """The database's clock as the naive UTC datetime that Optuna keeps in its tables."""

    type = sa.DateTime()
    inherit_cache = True
    name = "utc_now"


@compiles(utc_now, "sqlite")
def _utc_sqlite(_element: utc_now, _compiler: SQLCompiler, **_: object) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(utc_now, "postgresql")
def _utc_postgresql(_element: utc_now, _compiler: SQLCompiler, **_: object) -> str:
    return "timezone('utc', clock_timestamp())"


@compiles(utc_now, "mysql")
def _utc_mysql(_element: utc_now, _compiler: SQLCompiler, **_: object) -> str:
    # Optuna's column holds whole seconds, and MySQL would round up into the future.
    return "utc_timestamp()"
