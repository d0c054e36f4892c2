"""Workers with a fake trainer on SQLite and PostgreSQL, and what "the end" of a study means."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hpo.spec import StudySpec
from hpo.study.database import Database, make_engine
from hpo.study.snapshot import Snapshot, take_snapshot
from hpo.study.studies import open_study
from tests.conftest import ROOT
from tests.faults.fake import submit_fake
from tests.servers import Server


@dataclass
class Farm:
    """A study, its workers, and what can be asked of them."""

    url: str
    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    spec: StudySpec | None = None

    def submit(self, spec: StudySpec) -> None:
        self.spec = spec
        submit_fake(self.url, spec)

    def worker(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        import os

        command = [sys.executable, "-m", "tests.faults.fake", self.url, "faults"]
        process = subprocess.Popen(
            [*command, str(self.folder), *options],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def workers(self, count: int, *options: str) -> list[subprocess.Popen[str]]:
        return [self.worker(*options) for _ in range(count)]

    def query(self, text: str) -> list[Any]:
        engine = make_engine(self.url)
        try:
            with engine.connect() as connection:
                return list(connection.execute(sa.text(text)))
        finally:
            engine.dispose()

    def reports(self) -> int:
        return int(self.query("SELECT count(*) FROM trial_intermediate_values")[0][0])

    def finished(self) -> int:
        return int(self.query("SELECT count(*) FROM hpo_slots WHERE state = 'done'")[0][0])

    def epochs_run(self) -> list[tuple[int, int]]:
        """(trial, epoch) of every epoch that was run, in order."""
        log = self.folder / "epochs.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(trial), int(epoch)) for trial, epoch, _ in map(str.split, lines)]

    def snapshot(self) -> Snapshot:
        database = Database(self.url)
        try:
            return take_snapshot(database, open_study(database, "faults"))
        finally:
            database.close()

    def leave(self, seconds: float = 90) -> None:
        """Every worker that is alive leaves by itself, with exit code 0."""
        for process in self.processes:
            _, errors = process.communicate(timeout=seconds)
            # -15: told to leave before it had begun to listen.
            assert process.returncode in (0, -9, -15), errors

    def check_end(self, interruptions: int) -> None:
        """Exactly N finished, none open, none twice; at most one epoch lost an interruption."""
        assert self.spec is not None
        trials, epochs = self.spec.search.trials, self.spec.training.epochs
        rows = self.query("SELECT number, state FROM trials ORDER BY number")
        assert [row[0] for row in rows] == list(range(trials))
        assert {row[1] for row in rows} == {"COMPLETE"}
        assert self.query("SELECT count(*) FROM trial_values") == [(trials,)]
        assert self.reports() == trials * epochs
        slots = self.query("SELECT state, trial_id FROM hpo_slots")
        assert {row[0] for row in slots} == {"done"}
        assert len({row[1] for row in slots}) == trials
        run = Counter(self.epochs_run())
        assert set(run) == {(n, e) for n in range(trials) for e in range(1, epochs + 1)}
        assert sum(run.values()) - trials * epochs <= interruptions


def _stop(farm: Farm) -> None:
    for process in farm.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.long)])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Farm]:
    """On every database."""
    if request.param == "sqlite":
        made = Farm(f"sqlite:///{tmp_path / 'hpo.db'}", tmp_path)
        yield made
        _stop(made)
        return
    server: Server = request.getfixturevalue(request.param)
    made = Farm(server.new_database(), tmp_path)
    yield made
    _stop(made)
    server.drop(made.url)


@pytest.fixture
def sqlite_farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(f"sqlite:///{tmp_path / 'hpo.db'}", tmp_path)
    yield made
    _stop(made)


@pytest.fixture
def postgresql_farm(postgresql: Server, tmp_path: Path) -> Iterator[Farm]:
    made = Farm(postgresql.new_database(), tmp_path)
    yield made
    _stop(made)
    postgresql.drop(made.url)
