"""Local workers: starts them, watches them, replaces those that die, ends with the study."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from hpo.errors import HpoError, StorageError
from hpo.launch.places import DB_TIMEOUT
from hpo.study.leases import MOST_LOST
from hpo.study.workers import worker_name
from hpo.worker.forking import FORKING, Forked, ForkServer

logger = logging.getLogger(__name__)

# A worker needs this long to checkpoint nothing, release its lease and leave.
_LEAVE_SECONDS = 8.0
# Workers that die again and again, without a trial that ends meanwhile, point at something that a
# restart does not mend. A trial that kills its workers fails before that.
_RESTARTS_PER_WORKER = MOST_LOST + 1
# Characters of a worker's log that an error repeats.
_LAST_WORDS = 2000


class WorkersFailedError(HpoError):
    """Workers have ended before the study was finished, and no restart would help."""


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


class LocalWorkers:
    """Worker processes on this machine. They end with this object, however its process ends.

    They are forked, where that is safe, from a process that imports what they need while the study
    may still have to be made. A context manager: at its end they have left.
    """

    def __init__(self, options: LaunchOptions) -> None:
        self.options = options
        self._on_death: Callable[[str], None] = _mourn_nobody
        self._restarts = 0
        self._finished = 0
        self._workers: list[_Worker] = []
        self._server = self._serve() if FORKING else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if self._server is not None:
                self._server.close()

    def begin(self, on_death: Callable[[str], None]) -> None:
        """Starts the workers.

        Args:
            on_death: Told the name of a worker that was killed; its process is gone for certain.

        Raises:
            WorkersFailedError: They can't be started.
        """
        self._on_death = on_death
        for _ in range(self.options.workers):
            self._workers.append(self._start())

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
            code = worker.exit_code()
            if code is not None and code != 0:
                self._on_death(worker.name)
                self._workers[index] = self._replace(code)
                worker.close()
        return any(worker.exit_code() is None for worker in self._workers)

    def stop(self) -> None:
        """Asks every worker to give its trial back and leave; kills the ones that do not."""
        try:
            for worker in self._workers:
                worker.send(signal.SIGTERM)
            deadline = time.monotonic() + _LEAVE_SECONDS
            for worker in self._workers:
                self._see_off(worker, max(0.0, deadline - time.monotonic()))
        finally:
            # Whoever does not wait until all have left lets go of them here.
            for worker in self._workers:
                worker.close()
            self._workers = []

    def _see_off(self, worker: _Worker, seconds: float) -> None:
        code = worker.exit_code(seconds)
        if code is None:
            worker.send(signal.SIGKILL)
            code = worker.exit_code(_LEAVE_SECONDS)
        if code is None or code < 0:
            # Without it the trial waits until the lease has run out.
            with contextlib.suppress(StorageError):
                self._on_death(worker.name)

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
        arguments = ["worker", options.study, "--with-parent", "--name", name]
        arguments += ["--project", str(options.project)]
        arguments += ["--lease", str(options.lease_seconds), "--threads", str(self._threads())]
        arguments += ["--db-timeout", str(options.db_timeout)]
        # Closed, it tells a worker that this process is gone.
        stdin, ours = os.pipe()
        try:
            return _Worker(name, self._process(arguments, stdin), ours)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(stdin)

    def _process(self, arguments: list[str], stdin: int) -> Forked | _Spawned:
        if self._server is None:
            return self._spawn(arguments, stdin)
        try:
            return self._fork(arguments, stdin)
        except OSError:
            # The server was killed, perhaps by whoever looks for memory.
            self._server.close()
            self._server = self._serve()
        try:
            return self._fork(arguments, stdin)
        except OSError:
            raise WorkersFailedError(f"no worker can be started; {self._last_words()}") from None

    def _fork(self, arguments: list[str], stdin: int) -> Forked | _Spawned:
        assert self._server is not None
        return Forked(self._server.address, {"arguments": arguments}, stdin)

    def _serve(self) -> ForkServer:
        with self._output() as output:
            return ForkServer(
                "hpo.cli.workerserver", self._environment(), stdout=None, stderr=output
            )

    def _spawn(self, arguments: list[str], stdin: int) -> Forked | _Spawned:
        with self._output() as output:
            return _Spawned(
                subprocess.Popen(
                    [sys.executable, "-m", "hpo", *arguments],
                    env={**os.environ, **self._environment()},
                    stdin=stdin,
                    stderr=output,
                    # As for a server: Ctrl-C in a terminal is for this process.
                    start_new_session=True,
                )
            )

    def _environment(self) -> dict[str, str]:
        # Not on the command line, where every user of the machine could read a password.
        options = self.options
        environment = {"HPO_STORAGE": options.url, "HPO_ARTIFACTS": options.artifacts}
        if options.forkserver is not None:
            environment["HPO_FORKSERVER"] = options.forkserver
        return environment

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


class _Spawned:
    """Where forking is not safe: with an import of its own."""

    orphaned = False

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def exit_code(self, timeout: float) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None


class _Worker:
    """A worker's process, and the pipe whose end the worker takes for the end of this process."""

    def __init__(self, name: str, process: Forked | _Spawned, pipe: int) -> None:
        self.name = name
        self._process = process
        self._pipe = pipe

    def exit_code(self, timeout: float = 0) -> int | None:
        """Negative: the signal that killed it; None while it works."""
        code = self._process.exit_code(timeout)
        if code is None and self._process.orphaned:
            # Nobody could say when it has ended. Its trial goes on elsewhere.
            self.send(signal.SIGKILL)
            return -signal.SIGKILL
        return code

    def send(self, signal_number: int) -> None:
        if self._process.exit_code(0) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal_number)

    def close(self) -> None:
        os.close(self._pipe)


def available_cores() -> int:
    """Cores that this process may use, which in a container are not all of the machine's."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
