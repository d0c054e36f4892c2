"""A database password is seen by nobody. The number is the row of docs/faults.md."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import sqlalchemy as sa

from hpo.console import without_passwords
from hpo.worker.trainers import _spawn
from tests.conftest import SECRET, Hpo, wait_for
from tests.end_to_end.conftest import BUILDER, Project, study_content
from tests.servers import Server

# User code that tells all it knows.
_TALKATIVE = "import os, sys\nprint(os.environ, sys.argv, sys.orig_argv, flush=True)\n" + BUILDER


@pytest.fixture
def url(postgresql: Server, locked_role: tuple[str, str]) -> Iterator[str]:
    """An empty database that needs its password."""
    role, password = locked_role
    made = postgresql.new_database()
    locked = sa.make_url(made).set(username=role, password=password)
    text = locked.render_as_string(hide_password=False)
    assert quote(password, safe="") in text
    # The server reads its new rules a little after it was told to.
    wait_for(lambda: not _can_connect(locked.set(password="wrong")))
    yield text
    postgresql.drop(made)


def _can_connect(url: sa.URL) -> bool:
    engine = sa.create_engine(url)
    try:
        engine.connect().close()
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()
    return True


@pytest.fixture
def project(tmp_path: Path, forkserver: str) -> Project:
    made = Project(tmp_path, forkserver)
    made.write(study_content(training={"epochs": 1, "seed": 3}, search={"trials": 2}))
    (tmp_path / "builder.py").write_text(_TALKATIVE)
    return made


def check_silent(*done: subprocess.CompletedProcess[str]) -> None:
    for each in done:
        assert SECRET not in each.stdout + each.stderr


def check_files(folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        assert SECRET.encode() not in path.read_bytes(), path


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


@contextmanager
def nobody_else_shows_it(own: int = 0) -> Iterator[None]:
    """Looks at every command line of the machine all the while, but for that of `own`."""
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.03):
            lines = {command_line(pid) for pid in psutil.pids() if pid != own}
            seen.update(line for line in lines if SECRET in line)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()
    assert seen == set()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.keras
def test_row_22_every_command_works_and_keeps_it(
    project: Project, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_STORAGE", url)
    # With a fork server of its own, which gets the password with the environment.
    with nobody_else_shows_it():
        done = [Project(project.folder, "").hpo("run", "study.yaml", "--no-export")]
        done += [project.hpo("submit", "study.yaml"), project.hpo("worker", "small")]
        for command in ("status", "best", "doctor"):
            done += [project.hpo(command), project.hpo(command, "--json")]
        done += [project.hpo("stop"), project.hpo("resume")]
    assert [each.args for each in done if each.returncode != 0] == []
    check_silent(*done)
    assert json.loads(project.hpo("status", "--json").stdout)["finished"] == 2
    [check] = [each for each in json.loads(done[8].stdout) if each["name"] == "storage"]
    assert "keeper:***@" in check["found"]
    logs = list(project.folder.glob("artifacts/small/logs/*"))
    assert any("orig_argv" in log.read_text() or "environ(" in log.read_text() for log in logs)
    check_files(project.folder)


@pytest.mark.keras
def test_row_22_no_trainer_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what else runs in one: checks, looks at data, exports."""
    monkeypatch.setenv("HPO_STORAGE", SECRET)
    # A user's code may have a database of its own to read.
    monkeypatch.setenv("PGPASSWORD", "another")
    trainer = _spawn(None)
    try:
        assert trainer.call("os:getenv", key="HPO_STORAGE") is None
        assert trainer.call("os:getenv", key="PGPASSWORD") == "another"
    finally:
        trainer.kill()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.keras
def test_row_22_typed_on_the_command_line_it_does_not_stay_there(
    project: Project, url: str
) -> None:
    run = project.start("run", "study.yaml", "--no-export", "--storage", url)
    with nobody_else_shows_it(own=run.pid):
        wait_for(lambda: "keeper:***@" in command_line(run.pid))
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert SECRET not in output
    check_files(project.folder)

    dashboard = project.start("dashboard", "--port", "0", f"--storage={url}")
    assert dashboard.stdout is not None
    address = dashboard.stdout.readline().strip()
    line = command_line(dashboard.pid)
    assert "dashboard --port 0 --storage=postgresql" in line
    assert "keeper:***@" in line
    assert SECRET not in line
    with urllib.request.urlopen(f"{address}api/studies", timeout=30) as answer:
        [study] = json.loads(answer.read())["study_summaries"]
    assert study["study_name"] == "small"
    dashboard.send_signal(signal.SIGTERM)
    output, _ = dashboard.communicate(timeout=30)
    assert dashboard.returncode == 130
    assert SECRET not in output


@pytest.mark.slow
def test_row_22_a_wrong_password_is_an_error_that_keeps_it(inprocess_hpo: Hpo, url: str) -> None:
    hpo, right = inprocess_hpo, sa.make_url(url)
    wrong = right.set(password=f"{right.password}!").render_as_string(hide_password=False)
    spec = Path(__file__).parents[2] / "studies" / "digits-mlp.yaml"
    commands = [("status",), ("best", "--json"), ("stop",), ("dashboard",), ("worker", "small")]
    commands += [("submit", spec, "--project", spec.parents[1])]
    for command in commands:
        done = hpo(*command, HPO_STORAGE=wrong)
        assert done.returncode == 5, done.stderr
        assert "authentication failed" in done.stderr
        assert "keeper:***@" in done.stderr
        check_silent(done)
    check_silent(hpo("status", "--storage", wrong))
    done = hpo("doctor", "--json", HPO_STORAGE=wrong)
    assert done.returncode == 1
    assert "authentication failed" in done.stdout
    check_silent(done)


@pytest.mark.long
@pytest.mark.slow
def test_row_22_a_database_that_is_away_keeps_it(hpo: Hpo, url: str) -> None:
    away = sa.make_url(url).set(host="127.0.0.1", port=9, query={})
    storage = away.render_as_string(hide_password=False)
    for command in (("status",), ("worker", "small", "--db-timeout", "1")):
        done = hpo(*command, HPO_STORAGE=storage)
        assert done.returncode == 5
        assert "keeper:***@127.0.0.1:9" in done.stderr
        check_silent(done)
    done = hpo("doctor", HPO_STORAGE=storage)
    assert done.returncode == 1
    check_silent(done)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--storage", f"postgresql://u:{SECRET}@x@h/d"),
        ("status", "--storage", f"postgresql://u:{SECRET}@h:port/d"),
        ("status", "--storage", f"postgresql://h/d?password={SECRET}"),
        ("status", "--storage", f"oracle://u:{SECRET}@h/d"),
        ("status", "small", f"postgresql://u:{SECRET}@h/d"),
        ("submit", f"postgresql://u:{SECRET}@h/d"),
        ("status", "--project", f"postgresql://u:{SECRET}@h/d"),
        (f"postgresql://u:{SECRET}@h/d",),
    ],
)
def test_row_22_mistyped_it_is_not_repeated(hpo: Hpo, arguments: tuple[str, ...]) -> None:
    done = hpo(*arguments)
    assert done.returncode == 2
    assert done.stderr != ""
    check_silent(done)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see postgresql://u:p@ss/w@h/d, or a@b", "see postgresql://u:***@h/d, or a@b"),
        ("postgresql://:p@h/d", "postgresql://:***@h/d"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("http://127.0.0.1:8080/ is x@y", "http://127.0.0.1:8080/ is x@y"),
    ],
)
def test_row_22_the_password_of_a_url_is_masked(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


def test_row_22_processes_get_it_through_the_environment_alone(
    tmp_path: Path,
) -> None:
    from hpo.launch.local import LaunchOptions, LocalWorkers

    storage = f"postgresql://u:{SECRET}@127.0.0.1:9/d"
    before = set(psutil.Process().children())
    options = LaunchOptions("small", storage, tmp_path, str(tmp_path), 1, 30.0, "unused")
    with LocalWorkers(options) as local:
        local.begin(lambda _name: None)
        [server] = set(psutil.Process().children()) - before
        [worker] = server.children()
        wait_for(lambda: "--with-parent" in worker.cmdline())
        assert server.environ()["HPO_STORAGE"] == storage
        assert SECRET not in " ".join(server.cmdline() + worker.cmdline())
