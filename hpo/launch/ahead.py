"""Has a study's data opened by a process of its own, before any trainer can."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from hpo.data.ahead import OTHER, can_open_ahead
from hpo.errors import DataError
from hpo.spec.models import DataSpec, PythonSource


class DataAhead:
    """Data on its way into the folder that trainers share. A context manager: the process ends.

    Args:
        shared: The trainers' folder; None where trainers share none; then nothing is opened here.
    """

    def __init__(self, data: DataSpec, project: Path, shared: Path | None) -> None:
        self._source = data.source
        self._process: subprocess.Popen[str] | None = None
        if shared is None or not can_open_ahead(data):
            return
        # As in a trainer: the user's code runs there, and has no use for a password.
        environment = {name: text for name, text in os.environ.items() if name != "HPO_STORAGE"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hpo.data.ahead", str(project), str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # It stays open: closed, it tells the process that its owner is gone.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(data.model_dump_json() + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            # The user's code may have started more.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()

    def fingerprint(self) -> str | None:
        """Of the data that lies in the folder now; None when a trainer has to open it."""
        return self._line()

    def check_same(self) -> None:
        """Raises DataError if the data is not the same each time that it is opened."""
        if self._line() == OTHER:
            assert isinstance(self._source, PythonSource)
            raise DataError(
                f"{self._source.load} returns other data each time it is called, so no worker "
                "would train on what another one does; give whatever it draws a seed, for example "
                "np.random.default_rng(0)"
            )

    def _line(self) -> str | None:
        if self._process is None:
            return None
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip() or None
