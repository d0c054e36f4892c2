"""Workers with a fake trainer on SQLite and PostgreSQL, and what "the end" of a study means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hpo.spec import StudySpec
from hpo.study.database import Database
from hpo.study.engines import make_engine
from hpo.study.snapshot import Snapshot, take_snapshot
from hpo.study.studies import Facts, open_study
from tests.conftest import ROOT, leave_out, wait_for
from tests.faults.fake import FACTS, main, submit_fake
from tests.processes import Forked
from tests.servers import Server

Process = Forked | subprocess.Popen[str]


@dataclass(frozen=True)
class Holding:
    """What a worker held at a moment."""

    slot: int
    token: int
    number: int
    expires_at: float
    reported: int


@dataclass
class Farm:
    """A study, its workers, and what can be asked of them."""

    url: str
    folder: Path
    processes: list[Process] = field(default_factory=list)
    spec: StudySpec | None = None
    name: str = "faults"
    study_id: int = 0

    def submit(self, spec: StudySpec, facts: Facts = FACTS) -> None:
        self.spec = spec
        self.study_id = submit_fake(self.url, spec, facts).study_id

    def worker(self, *options: str, **environment: str) -> Process:
        words = [self.url, self.name, str(self.folder), *options]
        # Some of the environment is read before the first line of Python.
        process = _started(words, environment) if environment else Forked(main, words)
        self.processes.append(process)
        return process

    def workers(self, count: int, *options: str) -> list[Process]:
        return [self.worker(*options) for _ in range(count)]

    def keep_working(self, count: int, *options: str, seconds: float = 120) -> int:
        """Workers until the study has no open slot, each replaced when it dies; the deaths."""
        workers, deaths = self.workers(count, *options), 0
        deadline = time.monotonic() + seconds
        while any(worker.poll() is None for worker in workers) or self.open_slots():
            assert time.monotonic() < deadline
            for index, worker in enumerate(workers):
                if worker.poll() == -signal.SIGKILL:
                    deaths += 1
                    worker.communicate()
                    workers[index] = self.worker(*options)
            time.sleep(0.02)
        self.leave()
        return deaths

    def open_slots(self) -> int:
        return int(self.query("SELECT count(*) FROM hpo_slots WHERE state <> 'done'")[0][0])

    def query(self, text: str) -> list[Any]:
        engine = make_engine(self.url)
        try:
            # On SQLite, any other transaction would wait for a worker that is suspended in its own.
            with engine.connect().execution_options(hpo_read_only=True) as connection:
                return list(connection.execute(sa.text(text)))
        finally:
            engine.dispose()

    def reports(self) -> int:
        return int(self.query("SELECT count(*) FROM trial_intermediate_values")[0][0])

    def finished(self) -> int:
        return int(self.query("SELECT count(*) FROM hpo_slots WHERE state = 'done'")[0][0])

    def reasons(self) -> list[str]:
        table = "trial_user_attributes"
        rows = self.query(f"SELECT value_json FROM {table} WHERE {table}.key = 'reason'")
        return [str(text) for (text,) in rows]

    def epochs_run(self) -> list[tuple[int, int]]:
        """(trial, epoch) of every epoch that was run, in order."""
        log = self.folder / "epochs.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(trial), int(epoch)) for trial, epoch, _ in map(str.split, lines)]

    def epochs_of(self, held: Holding) -> tuple[list[int], list[int]]:
        """Epochs of the held trial that were run under that lease, and under the ones after it."""
        lines = (self.folder / "epochs.log").read_text().splitlines()
        rows = [tuple(map(int, line.split())) for line in lines]
        ours = [(epoch, token) for trial, epoch, token in rows if trial == held.number]
        before = [epoch for epoch, token in ours if token <= held.token]
        return before, [epoch for epoch, token in ours if token > held.token]

    def holding(self, worker: Process) -> Holding | None:
        """The slot that the worker has leased, with the epochs that are reported of its trial."""
        rows = self.query(
            "SELECT s.slot, s.token, s.number, s.expires_at, "
            "(SELECT count(*) FROM trial_intermediate_values v WHERE v.trial_id = s.trial_id) "
            "FROM hpo_slots s JOIN hpo_workers w ON w.worker = s.worker "
            f"WHERE s.study_id = {self.study_id} AND s.state = 'leased' AND w.pid = {worker.pid}"
        )
        return Holding(*rows[0]) if rows else None

    def in_a_trial(self, worker: Process) -> Holding | None:
        """What the worker holds when its trial has epochs behind it and others to come."""
        assert self.spec is not None
        held = self.holding(worker)
        return held if held and 2 <= held.reported < self.spec.training.epochs else None

    def stop_in_a_trial(self, worker: Process) -> Holding:
        """Suspends the worker when it is certain to be in the middle of a trial; what it holds."""

        def caught() -> Holding | None:
            if self.in_a_trial(worker) is None:
                return None
            worker.send_signal(signal.SIGSTOP)
            held = self.in_a_trial(worker)
            if held is None:
                worker.send_signal(signal.SIGCONT)
            return held

        held = wait_for(caught)
        assert held is not None
        return held

    def kill_in_a_trial(self, worker: Process) -> Holding:
        """Kills the worker when it is certain to be in the middle of a trial; what it held."""
        held = self.stop_in_a_trial(worker)
        worker.kill()
        worker.communicate()
        return held

    def snapshot(self) -> Snapshot:
        database = Database(self.url)
        try:
            return take_snapshot(database, open_study(database, self.name))
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


def _started(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.fake", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stop(farm: Farm) -> None:
    for process in farm.processes:
        if process.poll() is None:
            process.kill()
        # A trainer that hangs would hold the pipe open for ever.
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)


_MARIADB = pytest.param("mariadb", marks=pytest.mark.long)
_POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.long)


@pytest.fixture(params=["sqlite", _POSTGRESQL, _MARIADB])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Farm]:
    """On every database."""
    if request.param == "sqlite":
        made = Farm(f"sqlite:///{tmp_path / 'hpo.db'}", tmp_path)
        yield made
        _stop(made)
    else:
        yield from _on_server(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture(params=["postgresql", _MARIADB])
def server_farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Farm]:
    """On every database that many hosts may share."""
    yield from _on_server(request.getfixturevalue(request.param), tmp_path)


def _on_server(server: Server, folder: Path) -> Iterator[Farm]:
    made = Farm(server.new_database(), folder)
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
    yield from _on_server(postgresql, tmp_path)


@pytest.fixture(scope="session")
def faketime() -> Path:
    """The library that gives a process another clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        leave_out("libfaketime is missing: apt-get install faketime")
    return found[0]
