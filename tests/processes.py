"""Processes that begin with everything imported: they start in a moment instead of a second."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]
_STREAMS = ("stdout", "stderr")
_IMPORTED = [
    "tests.conftest",
    "tests.faults.fake",
    "hpo.cli",
    "hpo.launch.running",
    "hpo.launch.submit",
    "hpo.study.notes",
    "hpo.watch.progress",
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
    """A process that runs `target(arguments)`, to be used as a `Popen` that pipes its output.

    Args:
        target: Returns the exit code.
        environment: All of it; that of this process when left out.
    """

    def __init__(
        self,
        target: Callable[[list[str]], int],
        arguments: list[str],
        cwd: Path = _ROOT,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hpo-output-"))
        # Not everybody wants to know what it said.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._said = ("", "")
        environment = dict(os.environ) if environment is None else environment
        self._process = context().Process(
            target=_run, args=(target, arguments, cwd, environment, self._folder)
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
        if self._folder.exists():
            output, errors = ((self._folder / name).read_text() for name in _STREAMS)
            self._said = (output, errors)
            shutil.rmtree(self._folder)
        return self._said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_forked(
    target: Callable[[list[str]], int],
    arguments: list[str],
    cwd: Path,
    environment: dict[str, str],
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`: the process is killed when it takes longer than `timeout` seconds."""
    process = Forked(target, arguments, cwd, environment)
    try:
        output, errors = process.communicate(timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(arguments, process.wait(), output, errors)


def _run(
    target: Callable[[list[str]], int],
    arguments: list[str],
    cwd: Path,
    environment: dict[str, str],
    folder: Path,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, name in enumerate(_STREAMS, start=1):
        with (folder / name).open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    try:
        code = target(arguments)
    finally:
        # As at the end of any interpreter; processes of multiprocessing leave it out.
        atexit._run_exitfuncs()
    sys.exit(code)
