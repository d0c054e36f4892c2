"""Processes that begin with everything imported: they start in a moment instead of a second."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]
_IMPORTED = [
    "tests.faults.fake",
    "optuna",
    "optuna.storages",
    "optuna.storages._rdb.storage",
    "alembic",
    "psycopg",
    "pymysql",
    "pytest",
]


def context() -> Any:
    """Of multiprocessing; its processes share nothing with this one."""
    found = get_context("forkserver")
    found.set_forkserver_preload(_IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        # What is imported is looked for where the server starts, which may be anywhere.
        patch.setenv("PYTHONPATH", str(_ROOT), prepend=os.pathsep)
        forkserver.ensure_running()
    return found


class Forked:
    """A process that runs `target(arguments)`, to be used as a `Popen` that pipes stderr.

    Args:
        target: Returns the exit code.
    """

    def __init__(self, target: Callable[[list[str]], int], arguments: list[str]) -> None:
        handle, errors = tempfile.mkstemp(prefix="hpo-stderr-")
        os.close(handle)
        self._errors = Path(errors)
        self._said = ""
        self._process = context().Process(
            target=_run, args=(target, arguments, dict(os.environ), errors)
        )
        self._process.start()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        with suppress(FileNotFoundError):
            self._said = self._errors.read_text()
            self._errors.unlink()
        return "", self._said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    target: Callable[[list[str]], int], arguments: list[str], environment: dict[str, str], err: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with Path(os.devnull).open("wb") as nowhere, Path(err).open("ab") as errors:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    try:
        code = target(arguments)
    finally:
        # As at the end of any interpreter; processes of multiprocessing leave it out.
        atexit._run_exitfuncs()
    sys.exit(code)
