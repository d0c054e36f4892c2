"""Trainers that are threads of this process, for a builder that exists nowhere else.

TensorFlow may be in use here already, so nothing is forked; and a thread can't be killed: a trainer
that is not wanted any more ends with its epoch, when it has something to say and nobody listens.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hpo.worker.child import DismissedError, TrainerSide
from hpo.worker.trainers import Trainer, Trainers


class InProcessTrainers(Trainers):
    """Starts trainers in this process, one at a time: Keras seeds whole processes.

    What this thread has set of Keras by now, such as a dtype policy, holds in theirs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: _Thread | None = None
        self._settings = _keras_settings()

    def start(
        self,
        log: Path | None = None,  # noqa: ARG002 - prints where it is
        *,
        leading: bool = False,  # noqa: ARG002 - there is one process
    ) -> Trainer:
        """A new trainer; waits until the one before has ended."""
        self.close()
        ours, theirs = multiprocessing.Pipe()
        self._last = _Thread(theirs, self._settings)
        return _InProcessTrainer(self._last, ours)

    def close(self) -> None:
        """Waits until the last trainer has ended; it must have been told to."""
        if self._last is not None:
            self._last.join()
            self._last = None


class _InProcessTrainer(Trainer):
    def memory(self) -> int:
        # A new trainer in the same process would not give anything back.
        return 0

    def kill(self) -> None:
        self._connection.close()


class _Thread:
    """A trainer's thread, in the place of its process."""

    def __init__(self, connection: Connection, settings: dict[str, Any]) -> None:
        self.pid = os.getpid()
        self._connection = connection
        self._settings = settings
        self._thread = threading.Thread(target=self._run, daemon=True, name="trainer")
        self._thread.start()

    def exit_code(self, timeout: float) -> int | None:
        self._thread.join(timeout)
        return None if self._thread.is_alive() else 1

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        # Closed, the pipe tells the worker that the thread has ended.
        with self._connection:
            try:
                _restore_settings(self._settings)
                TrainerSide(_Pipe(self._connection), own_process=False).run()
            except DismissedError:
                return
            finally:
                # What trials froze and what else lives in this process is the collector's again.
                gc.unfreeze()


def _keras_settings() -> dict[str, Any]:
    # Nobody has set anything of a Keras that is not imported yet.
    if "keras" not in sys.modules:
        return {}
    from hpo.training.seeding import keras_settings

    return keras_settings()


def _restore_settings(settings: dict[str, Any]) -> None:
    if settings:
        from hpo.training.seeding import restore_settings

        restore_settings(settings)


class _Pipe:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise DismissedError from None

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise DismissedError from None

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.receive()
