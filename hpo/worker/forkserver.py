"""A process that has imported Keras once and forks trainers from it.

Importing TensorFlow takes seconds of a core and hundreds of megabytes. Here it happens once a
machine: a trainer forked from this process begins at once and shares its pages. Forking is safe
because nothing but imports has run: TensorFlow starts its threads with the first operation, and
none runs here.

A client connects to the server's socket, sends one end of a pipe, its working directory, the path
of a log file and whether this trainer leads, and gets the trainer's process id. The connection
stays open, and when the trainer has ended, its exit status arrives there. The server ends when its
standard input closes, that is with its owner.

Modules that few trainers need are deferred. What a leading trainer had to import, and what trainers
need at the end of a trial, the server imports itself while nobody asks for a trainer: those that
are forked later have it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hpo.worker.deferred import SELDOM_USED, DeferredModules, run_module

# Elsewhere it is not there, or what the system's own libraries do in threads makes it unsafe.
FORKING = sys.platform == "linux"

# Needed at the end of a trial, so no trainer is kept waiting for it: matplotlib takes its time.
_CURVES = "hpo.training.curves"


class ForkServer:
    """Owns the server process; its trainers end with the workers that asked for them."""

    def __init__(self) -> None:
        # A socket's path may have 107 characters at most, so it does not go to the project.
        self._folder = tempfile.TemporaryDirectory(prefix="hpo-")
        self.address = str(Path(self._folder.name) / "forkserver")
        with socket.socket(socket.AF_UNIX) as listener:
            # Bound here, so that clients may connect while the server still imports.
            listener.bind(self.address)
            listener.listen(128)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpo.worker.forkserver", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
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


@dataclass
class _Trainer:
    pid: int
    client: socket.socket


def serve(listener: socket.socket) -> None:
    """Imports what trainers need, then forks one for each client until stdin closes."""
    # The garbage collector would go through all that imports make again and again, a sixth of
    # their time. Later it would touch, and so copy, every page that the children share.
    gc.disable()
    deferred = import_everything()
    gc.freeze()
    gc.enable()
    _Server(listener, deferred).run()
    # The owner may have been killed, and then nobody else removes what trainers have left there.
    shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)


def import_everything() -> DeferredModules:
    """What every trainer needs; what some need is deferred."""
    deferred = DeferredModules(SELDOM_USED)
    import hpo.training.preflight
    import hpo.training.trial
    import hpo.worker.child  # noqa: F401

    return deferred


class _Server:
    def __init__(self, listener: socket.socket, deferred: DeferredModules) -> None:
        self._listener = listener
        self._deferred = deferred
        # Modules to import.
        self._ahead: list[str] = []
        self._selector = selectors.DefaultSelector()
        self._trainers: dict[int, _Trainer] = {}
        self._wake, self._signal = socket.socketpair()
        # Where leading trainers name deferred modules that they had to run.
        self._named, self._naming = os.pipe()
        for end in (self._wake, self._signal):
            end.setblocking(False)

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._signal.fileno())
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._named, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)
        while True:
            ready = self._selector.select(0 if self._ahead else None)
            if not ready:
                self._import_ahead()
            for key, _ in ready:
                if key.fileobj == 0:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    self._reap()
                elif key.fileobj == self._named:
                    self._ahead += os.read(self._named, 65536).decode().split()

    def _import_ahead(self) -> None:
        """What the trainers to come will need too."""
        name = self._ahead.pop(0)
        # Where it can't be imported, the trainer that needs it will say so.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
            run_module(name)
        gc.freeze()

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
        wanted = json.loads(request)
        pid = os.fork()
        if pid == 0:
            self._become_trainer(client, descriptors[0], wanted)
        if _CURVES not in sys.modules:
            self._ahead.append(_CURVES)
        os.close(descriptors[0])
        self._trainers[pid] = _Trainer(pid, client)
        _tell(client, {"pid": pid})

    def _become_trainer(
        self, client: socket.socket, descriptor: int, wanted: dict[str, Any]
    ) -> None:
        """Never returns."""
        from hpo.worker.child import serve as train

        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._forget(client)
            naming = self._naming
            if wanted["leading"]:
                self._deferred.on_run = lambda name: _write_name(naming, name)
            log = wanted["log"]
            # As if the client had started it: user code may open files from there.
            os.chdir(wanted["cwd"] or "/")
            train(Connection(descriptor), Path(log) if log else None)
            status = 0
        finally:
            os._exit(status)

    def _forget(self, client: socket.socket) -> None:
        """Closes what belongs to the server, so that a closed pipe shows as closed."""
        self._selector.close()
        sockets = [client, self._listener, self._wake, self._signal]
        for each in (*sockets, *(trainer.client for trainer in self._trainers.values())):
            each.close()
        os.close(self._named)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            trainer = self._trainers.pop(pid)
            _tell(trainer.client, {"exit": os.waitstatus_to_exitcode(status)})
            trainer.client.close()


def _write_name(descriptor: int, name: str) -> None:
    # The server may be gone by now.
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{name}\n".encode())


def _tell(client: socket.socket, message: dict[str, int]) -> None:
    # The client may be gone by now.
    with contextlib.suppress(OSError):
        client.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    assert threading.active_count() == 1
    serve(socket.socket(fileno=int(sys.argv[1])))
