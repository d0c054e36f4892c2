"""Seconds and memory of whole commands on studies of different size.

Each command is a process of its own, from its start to its end. Run from the repository's root:

    python -m benchmarks.commands sqlite:////tmp/commands.db --filled 100 100000

A table goes to stderr, one line of JSON for each command and size to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.storage import new_study

_ROOT = Path(__file__).parents[1]
_STUDY_FILE = "studies/digits-mlp.yaml"


def measure(command: list[str], repeats: int) -> dict[str, float]:
    """Medians of wall and CPU seconds of the command."""
    walls, cpus = [], []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hpo", *command],
            cwd=_ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
        )
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        "seconds": round(statistics.median(walls), 3),
        "cpu_seconds": round(statistics.median(cpus), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of whole commands by size of the study.")
    parser.add_argument("url", help="of a database; studies are added to it")
    parser.add_argument("--filled", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{'command':12}{'trials':>10}{'seconds':>10}{'CPU s':>10}", file=sys.stderr)
    for filled in arguments.filled:
        name = new_study(arguments.url, filled)
        commands: dict[str, list[str]] = {
            "help": ["--help"],
            "status": ["status", name, "--storage", arguments.url],
            "best": ["best", name, "--storage", arguments.url],
            "validate": ["validate", _STUDY_FILE],
        }
        for title, command in commands.items():
            figures = measure(command, arguments.repeats)
            row: dict[str, Any] = {"command": title, "filled": filled} | figures
            print(json.dumps(row), flush=True)
            cells = f"{figures['seconds']:10.2f}{figures['cpu_seconds']:10.2f}"
            print(f"{title:12}{filled:10}{cells}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
