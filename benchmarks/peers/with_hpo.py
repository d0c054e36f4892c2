"""This project: a study file, `hpo run` with local workers."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job, record

_HERE = Path(__file__).parent
_PROJECT = _HERE.parents[1]
_PAUSE = 0.1


def main() -> int:
    job = Job.from_command_line()
    study = Path("study.yaml")
    study.write_text(study_text(job))
    return run(study, job.workers)


def study_text(job: Job) -> str:
    """The task's study file with the job's numbers in it."""
    text = study_file(job.task).read_text()
    for key in ("trials", "epochs", "seed"):
        text = re.sub(rf"\b{key}: \d+", f"{key}: {getattr(job, key)}", text)
    return text if job.pruning else re.sub(r"pruner: \{.*?\}", "pruner: none", text)


def study_file(task: str) -> Path:
    return _HERE / f"{task}.yaml"


def run(study: Path, workers: int) -> int:
    """`hpo run` in the working directory, with events; its exit code."""
    database, artifacts = Path("hpo.db").absolute(), Path("artifacts").absolute()
    command = [sys.executable, "-m", "hpo", "run", str(study), "--workers", str(workers)]
    command += ["--no-export", "--project", str(_PROJECT)]
    command += ["--storage", f"sqlite:///{database}", "--artifacts", str(artifacts)]
    process = subprocess.Popen(command)
    seen = 0
    while process.poll() is None:
        time.sleep(_PAUSE)
        seen = _record_epochs(database, seen)
    _record_epochs(database, seen)
    _record_trials(database)
    return process.returncode


def _record_epochs(database: Path, seen: int) -> int:
    """Writes events of reports that came since the last look; a report bears no time itself."""
    rows = _query(
        database,
        "SELECT trial_intermediate_value_id, trial_id, step, intermediate_value "
        "FROM trial_intermediate_values WHERE trial_intermediate_value_id > ? ORDER BY 1",
        seen,
    )
    for _, trial, step, value in rows:
        record("epoch", trial, epoch=step, value=value)
    return rows[-1][0] if rows else seen


def _record_trials(database: Path) -> None:
    query = "SELECT trial_id, datetime_start, datetime_complete FROM trials WHERE trial_id > ?"
    for trial, begin, end in _query(database, query, 0):
        record("begin", trial, at=_seconds(begin))
        record("end", trial, at=_seconds(end))


def _query(database: Path, query: str, *values: int) -> list[Any]:
    """Rows, or none as long as there is no such table."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError:
        return []


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


if __name__ == "__main__":
    sys.exit(main())
