"""A worker with a small honest trainer: it suggests, sleeps, checkpoints and reports. No Keras.

Run as `python -m tests.faults.fake URL STUDY FOLDER`; all but the training is the real thing. Every
epoch that is run leaves a line in FOLDER/epochs.log, so a test can count them. Artifacts go to
FOLDER/artifacts, unless --artifacts says otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from hpo.artifacts import open_artifacts
from hpo.errors import ArtifactsError, HpoError
from hpo.spec import StudySpec
from hpo.spec.models import FloatParameter
from hpo.study.database import Database
from hpo.study.studies import Facts, StudyRecord, create_schema, create_study, open_study
from hpo.training.checkpoints import CheckpointFolder
from hpo.worker import messages as m
from hpo.worker.loop import Worker, WorkerOptions
from hpo.worker.signals import interruptible
from hpo.worker.trainers import Trainer, Trainers

_PR_SET_PDEATHSIG = 1

FACTS = Facts(data="fake", builder="fake", optuna="5", keras="3", signature="{}")


def fake_spec(**changes: Any) -> StudySpec:
    """A study whose training means nothing; `model.args` tells the trainer how to behave."""
    content: dict[str, Any] = {
        "version": 1,
        "name": "faults",
        "data": {"source": {"type": "sklearn", "name": "digits"}},
        "model": {"builder": "fake:fake", "args": {"seconds": 0.05}},
        "objective": {"metric": "val_accuracy", "direction": "maximize"},
        "training": {"epochs": 8, "seed": 5},
        "search": {"trials": 12, "sampler": "random"},
    }
    return StudySpec.model_validate(content | changes)


def submit_fake(url: str, spec: StudySpec, facts: Facts = FACTS) -> StudyRecord:
    database = Database(url, create=True)
    try:
        create_schema(database)
        return create_study(database, spec, facts)
    finally:
        database.close()


class FakeTrainers(Trainers):
    """Starts trainers that only pretend to train."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self._log = log

    def start(self, log: Path | None = None) -> Trainer:
        # A fork keeps what another thread has locked, libfaketime's lock too.
        method = "spawn" if "LD_PRELOAD" in os.environ else "fork"
        context: Any = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, ours, self._log), daemon=True)
        process.start()
        theirs.close()
        return Trainer(_Process(process), ours)


class _Process:
    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid

    def exit_code(self, timeout: float) -> int | None:
        self._process.join(timeout)
        code: int | None = self._process.exitcode
        return code


def _serve(connection: Connection, workers_end: Connection, log: Path) -> None:
    workers_end.close()
    _end_with_the_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    spec: StudySpec | None = None
    while True:
        try:
            message = connection.recv()
            if isinstance(message, m.Prepare):
                spec = StudySpec.from_json(message.spec_json)
                _die_preparing(spec.model.args.get("dying", 0), log.with_name("dying"))
                connection.send(m.Ready("fake", "fake", "3"))
            elif isinstance(message, m.TrialTask):
                assert spec is not None
                connection.send(_guarded_train(spec, message, connection, log))
                if message.number in spec.model.args.get("dying_after", []):
                    os.kill(os.getpid(), signal.SIGKILL)
        except (EOFError, OSError):
            os._exit(0)


def _die_preparing(trainers: int, noted: Path) -> None:
    """So many trainers of a study do."""
    with noted.open("a") as file:
        file.write("x")
    if noted.stat().st_size <= trainers:
        os.kill(os.getpid(), signal.SIGKILL)


def _guarded_train(spec: StudySpec, task: m.TrialTask, pipe: Connection, log: Path) -> Any:
    try:
        return _train(spec, task, pipe, log)
    except ArtifactsError as error:
        return m.Refused(type(error).__name__, str(error))


def _end_with_the_worker() -> None:
    """At once, as the real trainer does: also in the middle of an epoch."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _train(spec: StudySpec, task: m.TrialTask, pipe: Connection, log: Path) -> Any:
    def ask(message: Any) -> Any:
        pipe.send(message)
        return pipe.recv()

    x = ask(m.Suggest("x", FloatParameter(type="float", low=0.0, high=1.0))).value
    checkpoints = CheckpointFolder(task.folder, task.token)
    last = checkpoints.latest()
    done = last.epoch if last is not None else 0
    pipe.send(m.Begun(done, 1, "CPU"))
    args = spec.model.args
    # From this epoch on it gets worse.
    most = args.get("best", spec.training.epochs)
    for epoch in range(task.reported + 1, done + 1):
        ask(m.Report(epoch, _value(x, epoch, most)))
    epoch, pruned, diverged = done, task.pruned, None
    for epoch in range(done + 1, spec.training.epochs + 1):
        if task.number in args.get("deadly", []):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.number in args.get("deadly_worker", []):
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(1)
        # The trial's number as text: how many of its attempts raise.
        if task.token <= args.get("raising", {}).get(str(task.number), 0):
            return m.Failed("RuntimeError: bad luck", "Traceback: ...", epoch - 1)
        if task.number in args.get("diverging", []) and epoch == 3:
            diverged, epoch = "loss became nan in epoch 3", 2
            break
        # Not time.sleep, which fails where libfaketime sets the clock.
        threading.Event().wait(args["seconds"])
        with log.open("a") as file:
            file.write(f"{task.number} {epoch} {task.token}\n")
        best = min(epoch, most)
        checkpoints.save(
            epoch, [np.full(args.get("numbers", 3), x * epoch)], [], {"best_epoch": best}
        )
        checkpoints.keep_only({epoch, best})
        if ask(m.Report(epoch, _value(x, epoch, most))).prune:
            pruned = True
            break
    best = min(epoch, most)
    return m.Finished(
        pruned=pruned,
        diverged=diverged,
        epochs=epoch,
        best_epoch=best,
        value=_value(x, best, most),
        seconds=0.0,
        checkpoint=checkpoints.path(best),
        files=(m.Attachment("history.csv", b"epoch"),),
    )


def _value(x: float, epoch: int, best: int) -> float:
    return x * min(epoch, 2 * best - epoch)


def _signal_at(database: Database, statement: str, number: signal.Signals, whom: str) -> None:
    """The process sends itself or its trainer one right after a statement that has this in it.

    That is before any commit, if the statement does not commit by itself.
    """
    sent = threading.Event()

    @sa.event.listens_for(database.engine, "after_cursor_execute")
    def _send(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        if statement in text and not sent.is_set():
            sent.set()
            if whom == "worker":
                os.kill(os.getpid(), number)
            for trainer in multiprocessing.active_children() if whom == "trainer" else []:
                os.kill(trainer.pid or 0, number)
                trainer.join()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("study")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--artifacts")
    parser.add_argument("--lease", type=float, default=3.0)
    parser.add_argument("--patience", type=float, default=120.0)
    parser.add_argument("--die-at")
    parser.add_argument("--by", default="SIGKILL")
    parser.add_argument("--whom", choices=("worker", "trainer"), default="worker")
    arguments = parser.parse_args(words)
    artifacts = open_artifacts(arguments.artifacts or str(arguments.folder / "artifacts"))
    options = WorkerOptions(arguments.folder, artifacts, arguments.lease)
    with interruptible() as interruption:
        database = Database(arguments.url, patience=arguments.patience, hurry=interruption.stop)
        try:
            record = open_study(database, arguments.study)
            if arguments.die_at:
                number = signal.Signals[arguments.by]
                _signal_at(database, arguments.die_at, number, arguments.whom)
            trainers = FakeTrainers(arguments.folder / "epochs.log")
            Worker(database, record, options, trainers, interruption.stop).run()
        except HpoError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
        finally:
            database.close()
    return 130 if interruption.by_user else 0


if __name__ == "__main__":
    sys.exit(main())
