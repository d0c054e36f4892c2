"""A TCP proxy before a PostgreSQL that can lose an answer or stall."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO

_CHUNK = 65536
# A transaction's end, and what a worker writes of its trial, which commits by itself.
_COMMITTING = ("COMMIT", "WITH fence ", "WITH renewed ")


class Proxy:
    """Forwards connections on a free port of 127.0.0.1 to a Unix socket.

    Attributes:
        lost: The statements whose answers were lost.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._commits: Counter[str] = Counter()
        self._every: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lost: list[str] = []
        self._spawn(self._accept)

    def lose_every(self, nth: int | None) -> None:
        """Each `nth` commit of a statement reaches the server, its acknowledgement nobody.

        Counted in commits, not in seconds: on a slow machine a cut in every so many seconds
        would hit every commit, and nobody could get on. Each statement is counted by itself: of
        a seldom one, too, some answers are lost.
        """
        with self._lock:
            self._every = nth

    def stall(self) -> None:
        """Nothing flows in either direction until `resume`."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self.resume()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                continue
            doomed: list[str] = []
            self._spawn(lambda c=client, s=server, d=doomed: self._requests(c, s, d))
            self._spawn(lambda c=client, s=server, d=doomed: self._answers(c, s, d))

    def _requests(self, client: socket.socket, server: socket.socket, doomed: list[str]) -> None:
        prepared: dict[bytes, str] = {}
        with _closing(client, server), client.makefile("rb") as stream:
            while message := _message(stream):
                self._flowing.wait()
                statement = _executed(message, prepared)
                if statement.startswith(_COMMITTING) and self._is_lost(statement):
                    doomed.append(statement)
                server.sendall(message)

    def _answers(self, client: socket.socket, server: socket.socket, doomed: list[str]) -> None:
        with _closing(client, server):
            while chunk := server.recv(_CHUNK):
                self._flowing.wait()
                if doomed:
                    self.lost += doomed
                    break
                client.sendall(chunk)

    def _is_lost(self, statement: str) -> bool:
        with self._lock:
            self._commits[statement] += 1
            return self._every is not None and self._commits[statement] % self._every == 0

    @staticmethod
    def _spawn(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()


def _message(stream: BinaryIO) -> bytes:
    """The next one of PostgreSQL's protocol: a letter, its length, what it says; empty at the end.

    The first ones of a connection have no letter, and a length that begins with a zero.
    """
    head = stream.read(1)
    head += stream.read(3 if head == b"\0" else 4)
    return head + stream.read(int.from_bytes(head[-4:], "big") - 4) if head else head


def _executed(message: bytes, prepared: dict[bytes, str]) -> str:
    """The text of the statement that is executed with this message, or empty.

    Args:
        prepared: Those of the connection by their names; one that has no name goes by none.
    """
    kind, first, second, *_ = message[:1], *message[5:].split(b"\0", 2), b"", b""
    if kind == b"P":
        prepared[first] = second.decode()
    if kind == b"B":
        return prepared[second]
    return first.decode() if kind == b"Q" else ""


@contextlib.contextmanager
def _closing(*sockets: socket.socket) -> Iterator[None]:
    """Whichever side goes first, the other one learns of it: nobody waits for a dead peer."""
    with contextlib.suppress(OSError):
        yield
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
