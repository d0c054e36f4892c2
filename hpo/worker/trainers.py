"""Trainer processes as the worker sees them: start one, talk to it, end it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import psutil

from hpo.errors import HpoError
from hpo.worker import messages as m
from hpo.worker.forking import FORKING, Forked, ForkServer
from hpo.worker.forkserver import start_forkserver


class TrainerDiedError(HpoError):
    """The trainer process is gone; the message says how it ended."""


class Process(Protocol):
    """A started trainer process."""

    pid: int

    def exit_code(self, timeout: float) -> int | None:
        """Its exit code (negative: the signal that killed it), None while it is not known."""


class Trainer:
    """One trainer process and the pipe to it. Not thread-safe."""

    def __init__(self, process: Process, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._doing = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether its process is known to have ended."""
        return self._process.exit_code(0) is not None

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise self._died() from None

    def receive(self, timeout: float) -> Any | None:
        """The next message, or None when none arrived in `timeout` seconds.

        Raises:
            TrainerDiedError: The process is gone.
        """
        try:
            return self._connection.recv() if self._connection.poll(timeout) else None
        except (EOFError, OSError):
            raise self._died() from None

    def request(self, message: Any, still_wanted: Callable[[], bool] = lambda: True) -> Any:
        """Sends and waits for the answer; a refusal is raised as the error that it names."""
        self._doing = ""
        self.send(message)
        while True:
            answer = self.receive(0.2)
            if isinstance(answer, m.Doing):
                self._doing = f" while it {answer.words}"
                continue
            if isinstance(answer, m.Refused):
                raise answer.as_error()
            if answer is not None or not still_wanted():
                return answer

    def call(self, function: str, **arguments: Any) -> Any:
        """What `module:function` returns in the trainer, where Keras may be imported."""
        return self.request(m.Call(function, arguments)).value

    def memory(self) -> int:
        """Resident bytes without those of mapped files, 0 when the process is gone."""
        try:
            memory = psutil.Process(self.pid).memory_info()
            # Not told of on every system.
            return int(memory.rss - getattr(memory, "shared", 0))
        except psutil.Error:
            return 0

    def kill(self) -> None:
        """Ends the process at once; it holds nothing that a checkpoint does not hold."""
        # Closing the pipe makes a healthy trainer leave; the signal is for one that hangs.
        self._connection.close()
        if self._process.exit_code(0) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            # Also of one that is gone: what tells of its end is closed with that.
            self._process.exit_code(5)

    def _died(self) -> TrainerDiedError:
        code = self._process.exit_code(5)
        return TrainerDiedError(f"the trainer process {_in_words(code)}{self._doing}")


def _in_words(code: int | None) -> str:
    if code is None:
        return "is out of reach"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        # A real-time signal has none.
        name = f"signal {-code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


class Trainers:
    """Starts trainers: forked from a fork server where forking is safe, else spawned.

    Args:
        address: Of a fork server that somebody else owns; without one, the first trainer starts
            a server that lives as long as this object.
    """

    def __init__(self, address: str | None = None) -> None:
        self._given = address
        self._server: ForkServer | None = None

    @property
    def address(self) -> str | None:
        """Of the fork server in use, for others on this machine; None before the first trainer."""
        return self._server.address if self._server is not None else self._given

    @property
    def shared(self) -> Path | None:
        """A folder that all trainers of the fork server share; it goes when the server goes."""
        return None if self.address is None else Path(self.address).with_name("shared")

    def start(self, log: Path | None = None, *, leading: bool = False) -> Trainer:
        """A new trainer whose output goes to `log`.

        Args:
            leading: Whether the trainers to come will need the modules that this one imports.
        """
        if not FORKING:
            return _spawn(log)
        try:
            return _fork(self._server_address(), log, leading)
        except OSError:
            # The server is gone, perhaps with the process that owned it.
            self.close()
            self._given = None
            return _fork(self._server_address(), log, leading)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _server_address(self) -> str:
        if self.address is None:
            self._server = start_forkserver()
        assert self.address is not None
        return self.address


def _fork(address: str, log: Path | None, leading: bool) -> Trainer:
    ours, theirs = multiprocessing.Pipe()
    request = {"log": str(log) if log else None, "cwd": str(Path.cwd()), "leading": leading}
    with theirs:
        try:
            return Trainer(Forked(address, request, theirs.fileno()), ours)
        except BaseException:
            ours.close()
            raise


class _Spawned:
    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid = process.pid

    def exit_code(self, timeout: float) -> int | None:
        self._process.join(timeout)
        code: int | None = self._process.exitcode
        return code


def _spawn(log: Path | None) -> Trainer:
    from hpo.worker.child import serve

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, log), daemon=True)
    process.start()
    theirs.close()
    return Trainer(_Spawned(process), ours)
