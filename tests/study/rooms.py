"""What the tests of the study room build on: a small spec, a study, races."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.spec import StudySpec
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.leases import Lease, NoSlot, Outcome, Slots, TrialWrites
from hpo.study.studies import Facts, StudyRecord, create_study
from tests.processes import context

FACTS = Facts(data="d1", builder="b1", optuna="5", keras="3", signature="{}")
# Long enough that no lease runs out while a test looks the other way.
LONG = 300.0
COMPLETE = Outcome("COMPLETE", 0.5)


def make_spec(
    trials: int = 3, name: str = "digits", direction: str = "maximize", **changes: Any
) -> StudySpec:
    """A small spec; `search` is merged, other sections replace the ones here."""
    search = {"trials": trials} | changes.pop("search", {})
    content: dict[str, Any] = {
        "version": 1,
        "name": name,
        "data": {"source": {"type": "sklearn", "name": "digits"}},
        "model": {"builder": "models.mlp:MLP"},
        "objective": {"metric": "val_accuracy", "direction": direction},
        "training": {"epochs": 9, "seed": 7},
        "search": search,
    }
    return StudySpec.model_validate({**content, **changes})


def new_study(database: Database, trials: int = 3, **changes: Any) -> StudyRecord:
    return create_study(database, make_spec(trials, **changes), FACTS)


def slots_of(
    database: Database, record: StudyRecord, worker: str = "a", seconds: float = LONG
) -> Slots:
    return Slots(database, record.study_id, worker, seconds)


def claimed(slots: Slots) -> Lease:
    lease = slots.claim()
    assert not isinstance(lease, NoSlot), lease
    return lease


def expire(database: Database, lease: Lease) -> None:
    """Puts the end of the slot's lease into the past."""
    table = t.hpo_slots
    row = table.update().where(table.c.trial_id == lease.trial_id).values(expires_at=1.0)
    database.write(lambda connection: connection.execute(row))


def happens_at(database: Database, place: int, act: Callable[[], object]) -> None:
    """Has `act` happen before that one of the statements that the database executes from now on."""
    places = itertools.count()

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def _act(*_: Any) -> None:
        if next(places) == place:
            act()


def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    """Everything that stands in the table, in the order of its key."""
    query = sa.select(table).order_by(*table.primary_key.columns)
    found = database.read(lambda connection: connection.execute(query).mappings().all())
    return [dict(row) for row in found]


def some_writes() -> TrialWrites:
    """Something of every kind."""
    distribution = optuna.distributions.FloatDistribution(0, 1)
    param = {
        "param_name": "x",
        "param_value": 0.5,
        "distribution_json": optuna.distributions.distribution_to_json(distribution),
    }
    return TrialWrites([param], {1: 0.1}, {"a": 1}, {"b": 2})


def everything(database: Database) -> list[list[dict[str, Any]]]:
    """All rows of all tables."""
    tables: list[sa.Table] = [*t.metadata.sorted_tables, *t.optuna_metadata.sorted_tables]
    return [rows(database, table) for table in tables]


def race(target: Callable[..., Any], *arguments: Any, count: int = 8) -> list[Any]:
    """What `target(index, *arguments)` returns in each of `count` processes that start together."""
    processes = context()
    barrier, results = processes.Barrier(count), processes.Queue()
    runners = [
        processes.Process(target=_run, args=(barrier, results, target, index, arguments))
        for index in range(count)
    ]
    for runner in runners:
        runner.start()
    found = dict(results.get(timeout=60) for _ in runners)
    for runner in runners:
        runner.join()
    failures = [value for value in found.values() if isinstance(value, BaseException)]
    assert not failures, failures
    return [found[index] for index in range(count)]


def _run(barrier: Any, results: Any, target: Callable[..., Any], index: int, rest: Any) -> None:
    try:
        barrier.wait(60)
        results.put((index, target(index, *rest)))
    except BaseException as error:  # noqa: BLE001 - told to the test, which fails on it
        results.put((index, RuntimeError(f"{type(error).__name__}: {error}")))
