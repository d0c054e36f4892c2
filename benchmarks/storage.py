"""Compares the storage of this service with Optuna's own RDBStorage on one database.

Nothing is trained: five float parameters, ten reports a trial. Run from the repository's root:

    python -m benchmarks.storage sqlite:////tmp/storage.db --filled 0 1000 10000

A table goes to stderr, one line of JSON for each row to stdout.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import optuna
import psutil
from sqlalchemy import make_url

from benchmarks.filling import ATTRIBUTES, EPOCHS, PARAMETERS, fill, value_of
from hpo.spec import StudySpec
from hpo.spec.models import FloatParameter
from hpo.study.database import Database
from hpo.study.leases import NoSlot, Outcome, Slots
from hpo.study.storage import StudyStorage, make_study
from hpo.study.strategies import make_pruner, make_sampler
from hpo.study.studies import Facts, StudyRecord, create_schema, create_study, open_study
from hpo.study.suggest import suggest
from hpo.study.workers import register, worker_name

STEPS = ("ask", "report", "tell")
Timings = dict[str, list[float]]

_FACTS = Facts(data="benchmark", builder="benchmark", optuna="5", keras="3", signature="{}")
_FLOAT = FloatParameter(type="float", low=0.0, high=1.0)
# Enough slots for every worker to find one, whatever happens.
_SPARE = 5_000
_LEASE = 30.0


def make_spec(name: str, trials: int, sampler: str, pruner: str) -> StudySpec:
    return StudySpec.model_validate(
        {
            "version": 1,
            "name": name,
            "data": {"source": {"type": "sklearn", "name": "digits"}},
            "model": {"builder": "fake:fake"},
            "objective": {"metric": "val_accuracy", "direction": "maximize"},
            "training": {"epochs": EPOCHS, "seed": 5},
            "search": {"trials": trials, "sampler": sampler, "pruner": pruner},
        }
    )


def new_study(url: str, filled: int, sampler: str = "tpe", pruner: str = "none") -> str:
    """A study with `filled` finished trials and room for more; its name."""
    with closing(Database(url, create=True)) as database:
        create_schema(database)
        name = f"storage-{time.time_ns()}"
        record = create_study(database, make_spec(name, filled + _SPARE, sampler, pruner), _FACTS)
        rungs = pruner in ("hyperband", "successive_halving")
        fill(database, record.study_id, filled, rungs=rungs)
    return name


def our_trials(database: Database, record: StudyRecord) -> Iterator[Timings]:
    """Runs one trial after another as a worker does; the seconds of each step."""
    spec = record.spec
    slots = Slots(database, record.study_id, worker_name(), _LEASE)
    register(database, record.study_id, slots.worker)
    storage = StudyStorage(database, record)
    while True:
        timings: Timings = {step: [] for step in STEPS}
        with _timed(timings["ask"]):
            lease = slots.claim(spec.search.max_consecutive_failures)
            if isinstance(lease, NoSlot):
                return
            storage.hold(lease)
            sampler, pruner = make_sampler(spec, lease.slot), make_pruner(spec)
            study = make_study(storage, record, sampler, pruner)
            trial = optuna.Trial(study, lease.trial_id)
            params = {name: float(suggest(trial, name, _FLOAT)) for name in PARAMETERS}
            for key in ("model_parameters", "device", "host"):
                trial.set_user_attr(key, ATTRIBUTES[key])
            storage.flush(slots)
        value, state = value_of(params), "COMPLETE"
        for epoch in range(1, EPOCHS + 1):
            with _timed(timings["report"]):
                trial.report(value - 0.05 * (EPOCHS - epoch), epoch)
                pruned = trial.should_prune()
                storage.flush(slots)
            if pruned:
                state = "PRUNED"
                break
        with _timed(timings["tell"]):
            for key in ("epochs", "best_epoch", "seconds", "checkpoint"):
                trial.set_user_attr(key, ATTRIBUTES[key])
            told = optuna.trial.TrialState[state]
            sampler.after_trial(study, storage.get_trial(lease.trial_id), told, [value])
            storage.finish(slots, Outcome(state, value))
        yield timings


def raw_trials(database: Database, record: StudyRecord) -> Iterator[Timings]:
    """The same work with plain Optuna, in ask-and-tell."""
    url = database.engine.url.render_as_string(hide_password=False)
    options = {"connect_args": {"timeout": 60}} if database.dialect == "sqlite" else {}
    storage = optuna.storages.get_storage(
        optuna.storages.RDBStorage(url, engine_kwargs=options, skip_table_creation=True)
    )
    spec = record.spec
    # Options of the samplers of this service; the seed would be a worker's own.
    sampler = (
        optuna.samplers.TPESampler(multivariate=True, group=True)
        if spec.search.sampler.type == "tpe"
        else optuna.samplers.RandomSampler()
    )
    study = optuna.load_study(
        study_name=record.name, storage=storage, sampler=sampler, pruner=make_pruner(spec)
    )
    while True:
        timings: Timings = {step: [] for step in STEPS}
        with _timed(timings["ask"]):
            trial = study.ask()
            params = {name: trial.suggest_float(name, 0.0, 1.0) for name in PARAMETERS}
            for key in ("model_parameters", "device", "host"):
                trial.set_user_attr(key, ATTRIBUTES[key])
        value, state = value_of(params), optuna.trial.TrialState.COMPLETE
        for epoch in range(1, EPOCHS + 1):
            with _timed(timings["report"]):
                trial.report(value - 0.05 * (EPOCHS - epoch), epoch)
                pruned = trial.should_prune()
            if pruned:
                state = optuna.trial.TrialState.PRUNED
                break
        with _timed(timings["tell"]):
            for key in ("epochs", "best_epoch", "seconds", "checkpoint"):
                trial.set_user_attr(key, ATTRIBUTES[key])
            complete = state is optuna.trial.TrialState.COMPLETE
            study.tell(trial, value if complete else None, state)
        yield timings


KINDS: dict[str, Callable[[Database, StudyRecord], Iterator[Timings]]] = {
    "ours": our_trials,
    "optuna": raw_trials,
}


class _timed:  # noqa: N801 - reads as the statement that it is
    def __init__(self, into: list[float]) -> None:
        self._into = into

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._into.append(time.perf_counter() - self._start)


def _work(kind: str, url: str, name: str, barrier: Any, end: float, results: Any) -> None:
    """One worker: joins, then runs trials for `end` seconds, at least two."""
    # Optuna tells of every trial and of what is experimental.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _silence()
    # The drivers are imported before: an import is no property of a study.
    with closing(Database(url)) as database:
        database.read(lambda connection: connection.exec_driver_sql("SELECT 1"))
    barrier.wait()
    start = time.perf_counter()
    with closing(Database(url)) as database:
        trials = KINDS[kind](database, open_study(database, name))
        gathered = next(trials)
        joined, first_ask = time.perf_counter() - start, gathered["ask"][0]
        joined -= sum(gathered["report"]) + sum(gathered["tell"])
        begun, cpu, count = time.perf_counter(), time.process_time(), 0
        timings: Timings = {step: [] for step in STEPS}
        while count < 2 or time.perf_counter() - begun < end:
            for step, each in next(trials).items():
                timings[step] += each
            count += 1
        seconds = time.perf_counter() - begun
        results.put(
            {
                "timings": timings,
                "trials": count,
                "seconds": seconds,
                "cpu": (time.process_time() - cpu) / count,
                "join": joined,
                "first_ask": first_ask,
                "memory": psutil.Process().memory_info().rss,
            }
        )


def _silence() -> None:
    import warnings

    warnings.simplefilter("ignore")


def measure(kind: str, url: str, name: str, workers: int, seconds: float) -> dict[str, Any]:
    """The figures of `workers` processes that work on the study together."""
    # Spawned: the memory of a worker is its own.
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=_work, args=(kind, url, name, barrier, seconds, results))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=600 + seconds) for _ in processes]
    for process in processes:
        process.join()
    row: dict[str, Any] = {
        "trials_per_second": sum(one["trials"] / one["seconds"] for one in found),
        "cpu_ms_per_trial": statistics.mean(one["cpu"] for one in found) * 1000,
        "join_seconds": statistics.mean(one["join"] for one in found),
        "memory_mb": max(one["memory"] for one in found) / 1e6,
    }
    for step in STEPS:
        times = sorted(1000 * value for one in found for value in one["timings"][step])
        row[f"{step}_p50_ms"] = times[len(times) // 2]
        row[f"{step}_p95_ms"] = times[int(len(times) * 0.95)]
    return {key: round(value, 3) for key, value in row.items()}


_COLUMNS = {
    "database": "database",
    "kind": "storage",
    "sampler": "sampler",
    "pruner": "pruner",
    "filled": "trials",
    "workers": "workers",
    "trials_per_second": "trials/s",
    "ask_p50_ms": "ask p50",
    "ask_p95_ms": "p95 ms",
    "report_p50_ms": "report p50",
    "report_p95_ms": "p95 ms",
    "tell_p50_ms": "tell p50",
    "tell_p95_ms": "p95 ms",
    "cpu_ms_per_trial": "CPU ms/trial",
    "join_seconds": "join s",
    "memory_mb": "MB",
}


def print_row(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)
    cells = (
        f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key]) for key in _COLUMNS
    )
    widths = (max(8, len(title)) for title in _COLUMNS.values())
    line = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Our storage against Optuna's on one database.")
    parser.add_argument("url", help="of a database; studies are added to it")
    parser.add_argument("--filled", type=int, nargs="+", default=[0, 1_000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--pruner", default="none")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    arguments = parser.parse_args()
    titles = "  ".join(f"{title:>8}" for title in _COLUMNS.values())
    print(titles, file=sys.stderr)
    for filled in arguments.filled:
        for sampler in arguments.samplers:
            for kind in arguments.kinds:
                # A study of its own each: what one adds must not slow the next one down.
                for workers in arguments.workers:
                    name = new_study(arguments.url, filled, sampler, arguments.pruner)
                    row = measure(kind, arguments.url, name, workers, arguments.seconds)
                    head = {
                        "database": make_url(arguments.url).get_backend_name()
                        if "://" in arguments.url
                        else "embedded",
                        "kind": kind,
                        "sampler": sampler,
                        "pruner": arguments.pruner,
                        "filled": filled,
                        "workers": workers,
                    }
                    print_row(head | row)


if __name__ == "__main__":
    main()
