"""Seconds and memory of whole commands on studies of different size.

Each command is a process of its own, from its start to its end; a dashboard's until it has answered
with the study, also optuna-dashboard's own where the database is SQLite. Run from the repository's
root:

    python -m benchmarks.commands sqlite:////tmp/commands.db --filled 100 100000

A table goes to stderr, one line of JSON for each command and size to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

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


def measure_dashboard(command: list[str], name: str) -> dict[str, float]:
    """Seconds from the command to the study's data, megabytes of that, and of the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    with psutil.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    ) as server:
        try:
            url = f"http://127.0.0.1:{port}/api/studies"
            studies = json.loads(_answer(url, server))["study_summaries"]
            # What is not shown whole has a longer name.
            [key] = [each["study_id"] for each in studies if each["study_name"].startswith(name)]
            content = _answer(f"{url}/{key}?after=0", server)
            return {
                "seconds": round(time.perf_counter() - start, 2),
                "content_megabytes": round(len(content) / 1e6, 1),
                "megabytes": round(server.memory_info().rss / 1e6),
            }
        finally:
            server.terminate()


def _answer(url: str, server: psutil.Popen) -> bytes:
    """What the server answers, once it listens."""
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.URLError as error:
            if server.poll() is not None or not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of whole commands by size of the study.")
    parser.add_argument("url", help="of a database; studies are added to it")
    parser.add_argument("--filled", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    head = f"{'command':16}{'trials':>10}{'seconds':>10}{'CPU s':>10}"
    print(f"{head}, of a dashboard MB of its answer and of itself", file=sys.stderr)
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
            print(f"{title:16}{filled:10}{cells}", file=sys.stderr, flush=True)
        dashboards = {
            "dashboard": [sys.executable, "-m", "hpo", "dashboard", "--storage", arguments.url]
        }
        if arguments.url.startswith("sqlite:"):
            own = str(Path(sys.executable).with_name("optuna-dashboard"))
            dashboards["optuna-dashboard"] = [own, arguments.url]
        for title, command in dashboards.items():
            figures = measure_dashboard(command, name)
            print(json.dumps({"command": title, "filled": filled} | figures), flush=True)
            cells = "".join(f"{figure:10}" for figure in figures.values())
            print(f"{title:16}{filled:10}{cells}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
