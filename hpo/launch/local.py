"""Local workers: starts them, watches them, replaces those that die, ends with the study."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from hpo.errors import HpoError, StorageError
from hpo.launch.places import DB_TIMEOUT
from hpo.study.leases import MOST_LOST
from hpo.study.workers import worker_name
from hpo.worker.parent import BEGIN

logger = logging.getLogger(__name__)

# A worker needs this long to checkpoint nothing, release its lease and leave.
_LEAVE_SECONDS = 8.0
# Workers that die again and again, without a trial that ends meanwhile, point at something that a
# restart does not mend. A trial that kills its workers fails before that.
_RESTARTS_PER_WORKER = MOST_LOST + 1
# Characters of a worker's log that an error repeats.
_LAST_WORDS = 2000


class WorkersFailedError(HpoError):
    """Workers ended with an error of their own, and no restart would help."""


@dataclass(frozen=True)
class LaunchOptions:
    """What local workers are started with.

    Attributes:
        artifacts: Folder or URL, in the words that a worker is told.
        workers: How many.
        forkserver: Address of the fork server that their trainers come from.
        log: File for what they say; None for stderr.
        db_timeout: Seconds that each waits for a database that is away.
    """

    study: str
    url: str
    project: Path
    artifacts: str
    workers: int
    lease_seconds: float
    forkserver: str | None
    log: Path | None = None
    db_timeout: float = DB_TIMEOUT


@dataclass(frozen=True)
class _Worker:
    name: str
    process: subprocess.Popen[bytes]


class LocalWorkers:
    """Worker processes on this machine. They end with this object, however its process ends.

    They load what they need at once, while the study may still have to be made, and touch nothing
    before they are told to begin. A context manager: at its end they have left.
    """

    def __init__(self, options: LaunchOptions) -> None:
        self.options = options
        self._on_death: Callable[[str], None] = _mourn_nobody
        self._restarts = 0
        self._finished = 0
        self._workers = [self._start() for _ in range(options.workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def begin(self, on_death: Callable[[str], None]) -> None:
        """Has them work on the study.

        Args:
            on_death: Told the name of a worker that was killed; its process is gone for certain.
        """
        self._on_death = on_death
        for worker in self._workers:
            _tell_to_begin(worker.process)

    def tend(self, finished: int) -> bool:
        """Replaces workers that were killed; False once all of them have left.

        Args:
            finished: Trials of the study that have ended by now.

        Raises:
            WorkersFailedError: Workers keep ending with an error; their words are repeated.
        """
        if finished > self._finished:
            self._finished, self._restarts = finished, 0
        for index, worker in enumerate(self._workers):
            code = worker.process.poll()
            if code is not None and code != 0:
                self._on_death(worker.name)
                _close_stdin(worker.process)
                self._workers[index] = self._replace(code)
                _tell_to_begin(self._workers[index].process)
        return any(worker.process.poll() is None for worker in self._workers)

    def stop(self) -> None:
        """Asks every worker to give its trial back and leave; kills the ones that do not."""
        for process in self._alive():
            process.terminate()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
                # Without it the trial waits until the lease has run out.
                with contextlib.suppress(StorageError):
                    self._on_death(worker.name)
            _close_stdin(worker.process)

    def _alive(self) -> Iterator[subprocess.Popen[bytes]]:
        processes = (worker.process for worker in self._workers)
        return (process for process in processes if process.poll() is None)

    def _replace(self, code: int) -> _Worker:
        self._restarts += 1
        if code > 0 or self._restarts > _RESTARTS_PER_WORKER * self.options.workers:
            raise WorkersFailedError(
                f"a worker ended with exit code {code}; {self._last_words()} "
                "The study is intact: start it again once the cause is mended."
            )
        logger.warning("a worker was killed by signal %d; another one takes its place", -code)
        return self._start()

    def _last_words(self) -> str:
        log = self.options.log
        if log is None:
            return "its message is above."
        words = log.read_text(errors="replace").rpartition("error: ")[2]
        return f"its last words, in {log}: {words.strip()[-_LAST_WORDS:]}"

    def _start(self) -> _Worker:
        options, name = self.options, worker_name()
        command = [sys.executable, "-m", "hpo", "worker", options.study]
        command += ["--with-parent", "--name", name]
        command += ["--project", str(options.project)]
        command += ["--lease", str(options.lease_seconds), "--threads", str(self._threads())]
        command += ["--db-timeout", str(options.db_timeout)]
        # Not on the command line, where every user of the machine could read a password.
        environment = os.environ | {"HPO_STORAGE": options.url}
        environment["HPO_ARTIFACTS"] = options.artifacts
        if options.forkserver is not None:
            environment["HPO_FORKSERVER"] = options.forkserver
        # Its stdin tells a worker when to begin and, closed, that this process is gone; a session
        # of its own keeps a terminal's Ctrl-C away from it.
        with self._output() as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                bufsize=0,
                stderr=output,
                start_new_session=True,
            )
        return _Worker(name, process)

    def _output(self) -> contextlib.AbstractContextManager[BinaryIO | None]:
        log = self.options.log
        if log is None:
            return contextlib.nullcontext()
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")

    def _threads(self) -> int:
        return max(1, available_cores() // self.options.workers)


def _mourn_nobody(_name: str) -> None:
    """A worker that has not begun leaves nothing behind."""


def _tell_to_begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    # One that is gone already is found, and replaced, by `tend`.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(BEGIN)


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def available_cores() -> int:
    """Cores that this process may use, which in a container are not all of the machine's."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
