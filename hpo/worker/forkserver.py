"""A process that has imported Keras once and forks trainers from it.

TensorFlow starts its threads with the first operation, and none runs here. A client sends one end
of a pipe, its working directory, the path of a log file and whether this trainer leads.

Modules that few trainers need are deferred. What a leading trainer had to import, and what trainers
need at the end of a trial, the server imports itself while nobody asks for a trainer: those that
are forked later have it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import sys
import typing
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from hpo.worker.deferred import SELDOM_USED, DeferredModules, run_module
from hpo.worker.forking import ForkServer, Server, importing, listener

# Needed at the end of a trial, so no trainer is kept waiting for it: matplotlib takes its time.
_CURVES = "hpo.training.curves"


def start_forkserver() -> ForkServer:
    """A server of trainers; it imports Keras while its owner goes on."""
    return ForkServer("hpo.worker.forkserver", {"TF_CPP_MIN_LOG_LEVEL": "2"})


def import_everything() -> DeferredModules:
    """What every trainer needs; what some need is deferred."""
    deferred = DeferredModules(SELDOM_USED)
    with _names_compiled_once():
        import hpo.training.preflight
        import hpo.training.trial
        import hpo.worker.child  # noqa: F401

    return deferred


@contextlib.contextmanager
def _names_compiled_once() -> Iterator[None]:
    """For the import of TensorFlow's generated modules.

    They constrain 1,300 type variables to types that they name, such as "_atypes.Float32". Python
    compiles each of these 18,000 strings, a tenth of the import, although they are two dozen.
    """
    check = typing._type_check  # type: ignore[attr-defined]
    known: dict[str, Any] = {}

    def check_once(arg: Any, *others: Any, **options: Any) -> Any:
        if not isinstance(arg, str) or not arg.startswith("_atypes."):
            return check(arg, *others, **options)
        if arg not in known:
            known[arg] = check(arg, *others, **options)
        return known[arg]

    typing._type_check = check_once  # type: ignore[attr-defined]
    try:
        yield
    finally:
        typing._type_check = check  # type: ignore[attr-defined]


class _Trainers(Server):
    def __init__(self, listener: socket.socket, deferred: DeferredModules) -> None:
        super().__init__(listener)
        self._deferred = deferred
        # Where leading trainers name deferred modules that they had to run.
        self._named, self._naming = os.pipe()
        self.watch(self._named, self._read_names)

    def become(self, request: dict[str, Any], descriptor: int) -> NoReturn:
        from hpo.worker.child import serve as train

        status = 1
        # Ends with it what the user's code has started: see `Server`.
        os.setpgid(0, 0)
        try:
            if request["leading"]:
                self._deferred.on_run = partial(_write_name, self._naming)
            log = request["log"]
            # As if the client had started it: user code may open files from there.
            os.chdir(request["cwd"] or "/")
            train(Connection(descriptor), Path(log) if log else None)
            status = 0
        finally:
            os._exit(status)

    def forked(self) -> None:
        if _CURVES not in sys.modules:
            self.later.append(partial(_import, _CURVES))

    def _read_names(self) -> None:
        names = os.read(self._named, 65536).decode().split()
        self.later += [partial(_import, name) for name in names]


def _import(name: str) -> None:
    """What the trainers to come will need too."""
    # Where it can't be imported, the trainer that needs it will say so.
    with contextlib.suppress(Exception):
        importlib.import_module(name)
        run_module(name)
    gc.freeze()


def _write_name(descriptor: int, name: str) -> None:
    # The server may be gone by now.
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{name}\n".encode())


if __name__ == "__main__":
    with importing():
        _deferred = import_everything()
    _Trainers(listener(), _deferred).serve()
