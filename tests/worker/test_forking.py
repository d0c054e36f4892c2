"""A server forks processes, tells how they ended, and ends with its owner."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpo.worker.forking import Forked, ForkServer
from tests.conftest import wait_for


@pytest.fixture
def server() -> Iterator[ForkServer]:
    started = ForkServer("tests.worker.exiting", {})
    yield started
    started.close()


class Waiting:
    """A forked process that waits for a word."""

    def __init__(self, address: str) -> None:
        theirs, self._ours = os.pipe()
        self.process = Forked(address, {"told": 7, "closed": 8}, theirs)
        os.close(theirs)

    def tell(self) -> None:
        os.write(self._ours, b"\n")

    def close(self) -> None:
        os.close(self._ours)


def test_it_tells_how_a_process_ended(server: ForkServer) -> None:
    told, killed, closed = (Waiting(server.address) for _ in range(3))
    everyone = [each.process for each in (told, killed, closed)]
    assert len({os.getpid(), server.pid, *(process.pid for process in everyone)}) == 5
    assert [process.exit_code(0) for process in everyone] == [None] * 3
    told.tell()
    os.kill(killed.process.pid, signal.SIGKILL)
    # No other process, nor the server, holds the pipe open.
    closed.close()
    assert [process.exit_code(60) for process in everyone] == [7, -signal.SIGKILL, 8]
    assert not any(process.orphaned for process in everyone)
    told.close()
    killed.close()


def test_a_forked_process_has_nothing_of_the_server(server: ForkServer) -> None:
    first, second = Waiting(server.address), Waiting(server.address)
    for each in (first, second):
        process = psutil.Process(each.process.pid)
        # Standard streams and the pipe. It is told of before it has closed the others.
        wait_for(lambda process=process: process.num_fds() == 4)
        assert process.net_connections("unix") == []
    for each in (first, second):
        each.close()
        assert each.process.exit_code(60) == 8


def test_a_client_that_says_nothing_disturbs_nobody(server: ForkServer) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.address)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.address)
        client.sendall(b"{}")
    waiting = Waiting(server.address)
    waiting.close()
    assert waiting.process.exit_code(60) == 8


def test_without_the_server_nobody_knows(server: ForkServer) -> None:
    waiting = Waiting(server.address)
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: waiting.process.exit_code(0) is None and waiting.process.orphaned)
    assert psutil.Process(waiting.process.pid).is_running()
    waiting.close()
    # What it has inherited of the server it may hold until its end.
    wait_for(lambda: not psutil.pid_exists(waiting.process.pid))
    with pytest.raises(OSError, match="refused"):
        Waiting(server.address)


def test_a_server_that_cannot_start() -> None:
    server = ForkServer("tests.worker.nowhere", {})
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, whichever comes first
        Waiting(server.address)
    server.close()


def test_closing_it_leaves_no_file() -> None:
    server = ForkServer("tests.worker.exiting", {})
    folder = Path(server.address).parent
    assert folder.is_dir()
    server.close()
    assert not folder.exists()
