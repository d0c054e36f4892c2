"""Processes forked from one that has imported what they need.

An import that takes seconds of a core, and hundreds of megabytes, happens once a machine so: a
process forked afterwards begins at once and shares the pages. Forking is safe because the server
has run nothing but imports, in one thread.

A client connects to the server's socket, sends a request and one file descriptor, and gets the
process id of its process. The connection stays open, and when the process has ended, its exit
status arrives there. The server ends when its standard input closes, that is with its owner.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

# Elsewhere it is not there, or what the system's own libraries do in threads makes it unsafe.
FORKING = sys.platform == "linux"

# A server may be busy importing when it is asked for the first time.
_START_SECONDS = 120


class ForkServer:
    """Owns a server process. What it has forked ends with whoever asked for it.

    Args:
        module: Runs as a program: calls `serve` with the socket that `listener` returns.
        environment: Besides this process's own.
        stdout, stderr: Of the server and of what it forks; None: this process's.
    """

    def __init__(
        self,
        module: str,
        environment: Mapping[str, str],
        *,
        stdout: int | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    ) -> None:
        # A socket's path may have 107 characters at most, so it does not go to the project.
        self._folder = tempfile.TemporaryDirectory(prefix="hpo-")
        self.address = str(Path(self._folder.name) / "forkserver")
        with socket.socket(socket.AF_UNIX) as listener:
            # Bound here, so that clients may connect while the server still imports.
            listener.bind(self.address)
            listener.listen(128)
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[listener.fileno()],
                env={**os.environ, **environment},
                # Ctrl-C in a terminal is for the owner, who then decides.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        # It may still be importing, and would look at its stdin only afterwards.
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


class Forked:
    """A process that a server has forked for this one.

    Args:
        address: Of the server.
        request: What the server's `become` gets.
        descriptor: Likewise; stays open here.

    Raises:
        OSError: The server is gone.
    """

    def __init__(self, address: str, request: Mapping[str, Any], descriptor: int) -> None:
        self._buffer = b""
        self._code: int | None = None
        self._server = socket.socket(socket.AF_UNIX)
        try:
            self._server.connect(address)
            socket.send_fds(self._server, [json.dumps(request).encode()], [descriptor])
            self.pid = self._next(_START_SECONDS)["pid"]
        except BaseException:
            self._server.close()
            raise

    @property
    def orphaned(self) -> bool:
        """Whether its exit code will never be known: the server is gone."""
        return self._code is None and self._server.fileno() < 0

    def exit_code(self, timeout: float) -> int | None:
        """Its exit code (negative: the signal that killed it), None while it is not known."""
        if self._code is None and self._server.fileno() >= 0:
            try:
                self._code = self._next(timeout)["exit"]
            except TimeoutError:
                return None
            except OSError:
                self._server.close()
                return None
            self._server.close()
        return self._code

    def _next(self, timeout: float) -> dict[str, int]:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            # A timeout of zero would make the socket non-blocking.
            self._server.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._server.recv(4096)
            if not chunk:
                raise ConnectionResetError("the fork server is gone")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, int] = json.loads(line)
        return answer


class Server(ABC):
    """Forks a process for each client until stdin closes; runs in a process of its own.

    When a forked process that leads a process group has ended, the rest of the group is killed.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, socket.socket] = {}
        self._wake, self._signal = socket.socketpair()
        for end in (self._wake, self._signal):
            end.setblocking(False)
        self._selector.register(0, selectors.EVENT_READ)
        self.watch(listener, self._accept)
        self.watch(self._wake, self._reap)
        # What to do while nobody asks for a process.
        self.later: list[Callable[[], None]] = []

    @abstractmethod
    def become(self, request: dict[str, Any], descriptor: int) -> NoReturn:
        """Runs what the client has asked for, in the new process, to the process's end."""

    def forked(self) -> None:  # noqa: B027 - most servers have nothing to do then
        """Told in the server, after each fork."""

    def watch(self, readable: int | socket.socket, read: Callable[[], None]) -> None:
        """Has `read` called whenever there is something to read.

        A file descriptor is closed in forked processes.
        """
        self._selector.register(readable, selectors.EVENT_READ, read)

    def serve(self) -> None:
        assert threading.active_count() == 1
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._signal.fileno())
        while True:
            ready = self._selector.select(0 if self.later else None)
            if not ready:
                self.later.pop(0)()
            for key, _ in ready:
                if key.fileobj == 0:
                    # The owner may have been killed, and then nobody else removes its folder.
                    folder = Path(self._listener.getsockname()).parent
                    shutil.rmtree(folder, ignore_errors=True)
                    return
                key.data()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(10)
        try:
            request, descriptors, _, _ = socket.recv_fds(client, 65536, 1)
        except OSError:
            client.close()
            return
        if not descriptors:
            client.close()
            return
        pid = os.fork()
        if pid == 0:
            self._leave_server(client)
            self.become(json.loads(request), descriptors[0])
        os.close(descriptors[0])
        self._clients[pid] = client
        _tell(client, {"pid": pid})
        self.forked()

    def _leave_server(self, client: socket.socket) -> None:
        """Closes what belongs to the server, so that a closed pipe shows as closed."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, int) and key.fd != 0:
                os.close(key.fd)
        self._selector.close()
        sockets = [client, self._listener, self._wake, self._signal]
        for each in (*sockets, *self._clients.values()):
            each.close()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            # Before it is collected: until then no other process or group can have its number.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            pid, status = os.waitpid(ended.si_pid, 0)
            client = self._clients.pop(pid)
            _tell(client, {"exit": os.waitstatus_to_exitcode(status)})
            client.close()


@contextmanager
def importing() -> Iterator[None]:
    """For a server's imports.

    The garbage collector would go through all that they make again and again, a sixth of their
    time. Later it would touch, and so copy, every page that the forked processes share.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def listener() -> socket.socket:
    """The socket that the owner has passed to this program."""
    return socket.socket(fileno=int(sys.argv[1]))


def _tell(client: socket.socket, message: dict[str, int]) -> None:
    # The client may be gone by now.
    with contextlib.suppress(OSError):
        client.sendall(json.dumps(message).encode() + b"\n")
