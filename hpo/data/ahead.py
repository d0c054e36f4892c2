"""Opens data in a process of its own while another one still imports Keras.

Run as a program, which needs no Keras. It leaves the data in a folder (`hpo.data.sharing`) and says
so in a line of its output: the fingerprint. A function of the user's is called twice, in two
processes, and a second line says whether it has returned the same. Whatever goes wrong, it ends
without a word: a trainer will open the data then, and has the words for it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np

from hpo.data.opening import open_search_data
from hpo.data.sharing import SharedData
from hpo.spec.models import DataSpec, KerasSource, PythonSource, TableSource, TfRecordSource

# The second line.
SAME, OTHER = "same", "other"


def can_open_ahead(data: DataSpec) -> bool:
    """Whether the data may be such that Keras is not needed for it."""
    return not isinstance(data.source, TableSource | KerasSource | TfRecordSource)


class _NoKeras(MetaPathFinder):
    """Its import would take longer than waiting for the process that has it."""

    def __init__(self) -> None:
        self.asked = False

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in ("keras", "keras_tuner", "tensorflow"):
            self.asked = True
            raise ImportError(f"{name} is not imported here")
        return None


def _open(data: DataSpec, project: Path, shared: Path, answers: IO[str]) -> None:
    no_keras = _NoKeras()
    sys.meta_path.insert(0, no_keras)
    again = _Again(data, project, answers) if isinstance(data.source, PythonSource) else None
    opened = open_search_data(data, project)
    # The user's code may do without Keras where it is not there, and do something else then.
    if no_keras.asked:
        return
    SharedData(shared, data).leave(opened)
    print(opened.signature.fingerprint, file=answers, flush=True)
    if again is not None:
        found = again.fingerprint()
        if found is not None:
            same = found == opened.signature.fingerprint
            print(SAME if same else OTHER, file=answers, flush=True)


class _Again:
    """A second process, forked before any of the user's code has run, that opens the data too."""

    def __init__(self, data: DataSpec, project: Path, answers: IO[str]) -> None:
        context = multiprocessing.get_context("fork")
        self._answer, theirs = context.Pipe(duplex=False)
        arguments = (data, project, theirs, answers)
        context.Process(target=_send_fingerprint, args=arguments).start()
        theirs.close()

    def fingerprint(self) -> str | None:
        """None when it could not open the data."""
        try:
            found: str = self._answer.recv()
        except EOFError:
            return None
        return found


def _send_fingerprint(data: DataSpec, project: Path, answer: Connection, answers: IO[str]) -> None:
    # Whoever reads them shall see when the first process ends.
    answers.close()
    # Otherwise what is drawn without a seed would be the same in both.
    random.seed()
    np.random.seed()  # noqa: NPY002 - it is the user who may draw from this one
    answer.send(open_search_data(data, project).signature.fingerprint)


def _end_with_owner() -> None:
    # Not by way of `sys.stdin`: a process that is forked meanwhile would wait for its lock.
    while os.read(0, 1):
        pass
    # The second process too, and what the user's code may have started.
    os.killpg(os.getpid(), signal.SIGKILL)


def main() -> None:
    data = DataSpec.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_owner, daemon=True).start()
    project, shared = (Path(each) for each in sys.argv[1:])
    # What the user's code prints belongs to no answer.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        _open(data, project, shared, answers)


if __name__ == "__main__":
    main()
