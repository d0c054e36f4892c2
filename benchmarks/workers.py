"""How busy many workers on one database are kept, and how much they ask of it.

The trainer is the small one of tests/faults, with epochs that sleep; all but the training is the
real thing. Efficiency is the time that epochs sleep over the time that workers are there; it falls
with what the workers of one machine cost together, so look at the cores too. Run from the
repository's root:

    python -m benchmarks.workers sqlite:////tmp/workers.db --workers 2 8

A table goes to stderr, one line of JSON for each number of workers to stdout.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo.study.database import Database
from hpo.study.studies import open_study
from hpo.worker.loop import Worker, WorkerOptions
from tests.faults.fake import FakeTrainers, fake_spec, submit_fake

_LEASE = 30.0


def _work(url: str, name: str, folder: Path, barrier: Any, results: Any) -> None:
    """One worker from its first claim until the study has ended; what it asked of the database."""
    with closing(Database(url)) as database:
        counts = {"statements": 0, "transactions": 0}

        def count(what: str) -> None:
            counts[what] += 1

        sa.event.listen(database.engine, "before_cursor_execute", lambda *_: count("statements"))
        sa.event.listen(database.engine, "commit", lambda *_: count("transactions"))
        record = open_study(database, name)
        options = WorkerOptions(folder, folder / "artifacts", _LEASE)
        trainers = FakeTrainers(folder / "epochs.log")
        worker = Worker(database, record, options, trainers, threading.Event())
        barrier.wait()
        start, cpu = time.perf_counter(), time.process_time()
        ended = worker.run()
        results.put(
            counts
            | {
                "trials": ended,
                "seconds": time.perf_counter() - start,
                "cpu": time.process_time() - cpu,
            }
        )


def measure(url: str, workers: int, trials: int, epochs: int, seconds: float) -> dict[str, Any]:
    """A study of `trials` trials for each worker, with epochs of so many seconds."""
    name = f"workers-{time.time_ns()}"
    spec = fake_spec(
        name=name,
        model={"builder": "fake:fake", "args": {"seconds": seconds}},
        training={"epochs": epochs, "seed": 5},
        search={"trials": trials * workers, "sampler": "tpe"},
    )
    submit_fake(url, spec)
    # Not forked from here: each worker opens the database for itself. Its trainer is its fork.
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_work, args=(url, name, Path(folder), barrier, results))
            for _ in range(workers)
        ]
        for process in processes:
            process.start()
        found = [results.get(timeout=1800) for _ in processes]
        for process in processes:
            process.join()
    run = trials * workers * epochs
    return {
        "workers": workers,
        "trials": sum(one["trials"] for one in found),
        "epoch_seconds": seconds,
        "efficiency": round(run * seconds / sum(one["seconds"] for one in found), 3),
        "statements_per_epoch": round(sum(one["statements"] for one in found) / run, 2),
        "transactions_per_epoch": round(sum(one["transactions"] for one in found) / run, 2),
        "cpu_ms_per_epoch": round(1000 * sum(one["cpu"] for one in found) / run, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Efficiency of many workers on one database.")
    parser.add_argument("url", help="of a database; studies are added to it")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 32, 64])
    parser.add_argument("--trials", type=int, default=4, help="for each worker")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each epoch")
    arguments = parser.parse_args()
    titles = ("workers", "efficiency", "statements", "transactions", "CPU ms", "  (per epoch)")
    print("".join(f"{title:>13}" for title in titles), file=sys.stderr)
    for workers in arguments.workers:
        row = measure(arguments.url, workers, arguments.trials, arguments.epochs, arguments.seconds)
        print(json.dumps(row), flush=True)
        cells = ("workers", "efficiency", "statements_per_epoch", "transactions_per_epoch")
        line = "".join(f"{row[cell]:13}" for cell in (*cells, "cpu_ms_per_epoch"))
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
