"""Fixtures that several folders share. Tests run the real command, a real fork server, real data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
