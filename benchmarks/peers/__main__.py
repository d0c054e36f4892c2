"""Runs the same search with this project and its peers, turn by turn, and compares them.

    python -m benchmarks.peers digits --trials 20 --epochs 10 --repeats 5

A table goes to stderr, one line of JSON for each run to stdout. benchmarks/README.md says what the
columns mean.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.peers import data
from benchmarks.peers.job import Job, events_file
from benchmarks.peers.report import Clock, Row, figures, reached, show

# What each needs besides this project's own packages.
CONTESTANTS = {
    "hpo": [],
    "optuna": ["optuna_integration"],
    "kerastuner": ["tensorboard"],
    "ray": ["ray"],
    "kerastuner_hyperband": ["tensorboard"],
}
_DEFAULT = ("hpo", "optuna", "kerastuner", "ray")
# The validation accuracy that time to target waits for.
TARGETS = {"digits": 0.97, "fashion": 0.865}

ROOT = Path(__file__).parents[2]
_SPEED = (
    "wall_seconds",
    "startup_seconds",
    "seconds_per_trial",
    "seconds_per_epoch",
    "trials_per_minute",
    "trials",
    "epochs_trained",
    "best",
)
_TARGET = ("target_seconds", "target_epochs")


def main() -> None:
    arguments = _arguments()
    contestants: list[str] = arguments.contestants
    _check(arguments.task, contestants)
    console = Console(stderr=True)
    if arguments.warm_up:
        # Fills the page cache, which would otherwise be filled at the expense of whoever is first.
        for contestant in contestants:
            console.print(f"warming up: {contestant}")
            measure(contestant, _job(arguments, trials=arguments.workers, epochs=1), 1.0)
    rows: list[Row] = []
    for repeat in range(arguments.repeats):
        job = _job(arguments, seed=arguments.seed + repeat)
        turn = repeat % len(contestants)
        for contestant in contestants[turn:] + contestants[:turn]:
            console.print(f"repeat {repeat + 1} of {arguments.repeats}: {contestant}")
            row = measure(contestant, job, TARGETS[job.task], to_target=arguments.to_target)
            rows.append(row)
            print(json.dumps(row), flush=True)
    rows.sort(key=lambda row: contestants.index(row["contestant"]))
    words = f"{arguments.task}, medians and ranges of {arguments.repeats}"
    if not arguments.to_target:
        show(words, rows, _SPEED, console)
    show(f"{words}: to {TARGETS[arguments.task]:.3f}", rows, _TARGET, console)


def measure(
    contestant: str, job: Job, target: float, timeout: float = 3600, *, to_target: bool = False
) -> Row:
    """Runs a contestant in a process and a folder of its own.

    Args:
        to_target: Whether it is broken off once it has reached the target.

    Raises:
        RuntimeError: It failed or ran another number of trials; repeats its last words.
    """
    load, used = os.getloadavg()[0], _cpu_seconds()
    # Not below TMPDIR: Ray's Unix sockets lie in it, whose paths have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="peers-", dir="/tmp") as folder:
        events, log = Path(folder) / "events.jsonl", Path(folder) / "log"
        command = [sys.executable, "-m", f"benchmarks.peers.with_{contestant}", *job.arguments()]
        with log.open("wb") as output:
            started = time.time()
            process = psutil.Popen(
                command,
                cwd=folder,
                env=environment(job) | events_file(events),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = _wait(process, timeout, lambda: to_target and reached(events, target))
            finally:
                _end(process)
        clock = Clock(started, time.time())
        last_words = log.read_text(errors="replace")[-4000:]
        try:
            row = figures(events, clock, target)
        except (OSError, ValueError):
            row = {"trials": 0}
    if code is not None and (code != 0 or row["trials"] != job.trials):
        raise RuntimeError(
            f"{contestant} ended with exit code {code} after {row['trials']} of {job.trials} "
            f"trials; its last words:\n{last_words}"
        )
    # What Ray's processes have used nobody learns who waits for its driver; nor what those have
    # used that were broken off.
    cpu_known = contestant != "ray" and code is not None
    return {
        "contestant": contestant,
        "version": _version(contestant),
        "load_before": round(load, 2),
        "cores": cores(),
        **asdict(job),
        **row,
        "cpu_seconds": round(_cpu_seconds() - used, 1) if cpu_known else None,
    }


def environment(job: Job) -> dict[str, str]:
    """The same for all: each trainer's share of the cores, no GPU unless one is asked for."""
    threads = str(max(1, cores() // job.workers))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    ours = {name for name in os.environ if name.startswith(("HPO_", "RAY_", "KERASTUNER_"))}
    rest = {name: value for name, value in os.environ.items() if name not in ours}
    return (
        rest
        | dict.fromkeys(names, threads)
        | {
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Its own for each run; otherwise Ray writes one into the home folder.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # Ray Tune's own logs of each trial, as CSV, JSON and for TensorBoard.
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        }
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_seconds() -> float:
    """Of all processes that were started here, by these in turn, and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait(process: psutil.Popen, timeout: float, enough: Callable[[], bool]) -> int | None:
    """The exit code; None when there was enough before the end."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.TimeoutExpired):
            return int(process.wait(0.5))
        if enough():
            return None
    raise psutil.TimeoutExpired(timeout, process.pid)


def _end(process: psutil.Popen) -> None:
    """Ends what is left of a contestant that was broken off, by process id."""
    with contextlib.suppress(psutil.NoSuchProcess):
        left = [*process.children(recursive=True), process]
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left, 10)


def _job(arguments: argparse.Namespace, **instead: int) -> Job:
    names = Job.__dataclass_fields__
    return Job(**{name: getattr(arguments, name) for name in names} | instead)


def _check(task: str, contestants: list[str]) -> None:
    missing = sorted(
        {name for each in contestants for name in CONTESTANTS[each] if find_spec(name) is None}
    )
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}. Install: pip install -e '.[benchmarks]'")
    try:
        getattr(data, task)()
    except FileNotFoundError as error:
        sys.exit(str(error))


def _version(contestant: str) -> str:
    names = {
        "hpo": "keras-hpo",
        "kerastuner": "keras-tuner",
        "kerastuner_hyperband": "keras-tuner",
    }
    try:
        return version(names.get(contestant, contestant))
    except PackageNotFoundError:
        return "not installed"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("task", choices=list(TARGETS))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, by turns")
    parser.add_argument("--seed", type=int, default=0, help="of the first repeat, then counting up")
    parser.add_argument("--workers", type=int, default=2, help="trials at the same time")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(_DEFAULT))
    parser.add_argument("--pruning", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--to-target", action="store_true", help="end each run when it has reached the target"
    )
    parser.add_argument("--warm-up", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps-per-execution", type=int, default=1, help="Keras's, for the peers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
