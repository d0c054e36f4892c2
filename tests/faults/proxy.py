"""A TCP proxy before a PostgreSQL that can lose an answer or stall."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

_CHUNK = 65536


class Proxy:
    """Forwards connections on a free port of 127.0.0.1 to a Unix socket."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._commits = 0
        self._every: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = 0
        self._spawn(self._accept)

    def lose_every(self, nth: int | None) -> None:
        """Each `nth` commit reaches the server and its acknowledgement reaches nobody.

        Counted in commits, not in seconds: on a slow machine a cut in every so many seconds
        would hit every commit, and nobody could get on.
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
            doomed = threading.Event()
            self._spawn(lambda c=client, s=server, d=doomed: self._requests(c, s, d))
            self._spawn(lambda c=client, s=server, d=doomed: self._answers(c, s, d))

    def _requests(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with _closing(client, server):
            for chunk in self._chunks(client):
                if b"COMMIT" in chunk and self._is_lost():
                    doomed.set()
                server.sendall(chunk)

    def _answers(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        with _closing(client, server):
            for chunk in self._chunks(server):
                if doomed.is_set():
                    self.cut += 1
                    break
                client.sendall(chunk)

    def _chunks(self, source: socket.socket) -> Iterator[bytes]:
        while chunk := source.recv(_CHUNK):
            self._flowing.wait()
            yield chunk

    def _is_lost(self) -> bool:
        with self._lock:
            self._commits += 1
            return self._every is not None and self._commits % self._every == 0

    @staticmethod
    def _spawn(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()


@contextlib.contextmanager
def _closing(*sockets: socket.socket) -> Iterator[None]:
    """Whichever side goes first, the other one learns of it: nobody waits for a dead peer."""
    with contextlib.suppress(OSError):
        yield
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
