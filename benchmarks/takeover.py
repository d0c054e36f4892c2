"""Measures how long a killed worker's trial waits for the next worker, and what it costs.

Four workers with the trainer of tests/faults work through twelve trials. One of them is killed in
the middle of a trial; the time runs from the kill to the moment at which the slot carries the next
token. Run from the repository's root:

    python -m benchmarks.takeover sqlite:////tmp/takeover.db --repeats 10

A table goes to stderr, one line of JSON for each repeat to stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import make_url

from hpo.study.engines import make_engine
from tests.conftest import wait_for
from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec


def measure(url: str, lease: float, repeat: int) -> dict[str, Any] | None:
    """One study in which one worker is killed; None when it was not in the middle of a trial."""
    with tempfile.TemporaryDirectory() as folder:
        farm = Farm(url, Path(folder), name=f"takeover-{time.time_ns()}")
        farm.submit(fake_spec(name=farm.name))
        victim, *_ = farm.workers(4, "--lease", str(lease))
        wait_for(lambda: farm.in_a_trial(victim))
        victim.kill()
        killed = time.monotonic()
        victim.communicate()
        held = farm.holding(victim)
        if held is None:
            # It had ended its trial in between.
            farm.leave()
            return None
        seconds = _taken_over(url, farm.study_id, held.slot, held.token) - killed
        farm.leave()
        run = Counter(farm.epochs_run())
    return {
        "database": make_url(url).get_backend_name(),
        "repeat": repeat,
        "lease_seconds": lease,
        "takeover_seconds": round(seconds, 3),
        "epochs_lost": sum(run.values()) - len(run),
    }


def _taken_over(url: str, study_id: int, slot: int, token: int) -> float:
    """When the slot had another token. One connection, asked as often as it answers."""
    engine = make_engine(url).execution_options(hpo_read_only=True)
    query = sa.text("SELECT token FROM hpo_slots WHERE study_id = :study AND slot = :slot")

    def taken() -> bool:
        with engine.connect() as connection:
            found = connection.execute(query, {"study": study_id, "slot": slot}).scalar_one()
        return bool(found > token)

    wait_for(taken, pause=0.005)
    moment = time.monotonic()
    engine.dispose()
    return moment


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds from a worker's death to the takeover.")
    parser.add_argument("url", help="of a database; studies are added to it")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--lease", type=float, default=3.0)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    while len(rows) < arguments.repeats:
        row = measure(arguments.url, arguments.lease, len(rows))
        if row is not None:
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(f"{rows[0]['database']}, lease {arguments.lease:g} s", file=sys.stderr)
    print(f"{'':18}{'min':>8}{'median':>8}{'max':>8}", file=sys.stderr)
    for name in ("takeover_seconds", "epochs_lost"):
        values = [row[name] for row in rows]
        figures = (min(values), statistics.median(values), max(values))
        print(f"{name:18}" + "".join(f"{value:8.2f}" for value in figures), file=sys.stderr)


if __name__ == "__main__":
    main()
