"""The trainer process: receives work over a pipe, trains, reports. Never touches the database."""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpo.errors import ArtifactsError, HpoError, TrialError
from hpo.spec import StudySpec
from hpo.spec.models import Parameter, Scalar
from hpo.worker import messages as m

if TYPE_CHECKING:
    from hpo.training.bench import Bench


# Where drivers, too, look for one.
_PASSWORDS = ("HPO_STORAGE", "PGPASSWORD", "MYSQL_PWD")


def serve(connection: Connection, log: Path | None) -> None:
    """Does what arrives on the pipe until it closes. Runs in the trainer process."""
    # Ctrl-C reaches every process of a terminal; the worker decides what becomes of the trainer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The user's code runs here, and has no use for a password of the study's database.
    for name in _PASSWORDS:
        os.environ.pop(name, None)
    if log is not None:
        # A trainer without a log still trains; a full disk is told of by its checkpoints.
        with contextlib.suppress(OSError):
            _write_output_to(log)
    TrainerSide(_Pipe(connection)).run()


def _write_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


class Pipe(Protocol):
    """The trainer's end of the pipe to its worker."""

    def receive(self) -> Any: ...

    def send(self, message: Any) -> None: ...

    def ask(self, message: Any) -> Any: ...


class _Pipe:
    """The trainer's end of the pipe.

    A thread reads it: when the worker dies in the middle of an epoch, the trainer ends at once
    instead of training on for nobody.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True, name="pipe").start()

    def receive(self) -> Any:
        return self._received.get()

    def send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError:
            os._exit(0)

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.receive()

    def _read(self) -> None:
        while True:
            try:
                self._received.put(self._connection.recv())
            except (EOFError, OSError):
                os._exit(0)


class TrainerSide:
    """The trainer's half of the conversation: does what arrives on the pipe.

    Args:
        own_process: Whether nobody else uses TensorFlow here, so that it may be set up.
    """

    def __init__(self, pipe: Pipe, *, own_process: bool = True) -> None:
        self._pipe = pipe
        self._own_process = own_process
        self._bench: Bench | None = None

    def run(self) -> None:
        while True:
            message = self._pipe.receive()
            if isinstance(message, m.TrialTask):
                self._pipe.send(self._train(message))
                if self._bench is not None:
                    # Now, while the worker writes the trial and asks for the next one.
                    self._bench.graphs.settle()
            elif isinstance(message, m.Prepare):
                self._pipe.send(_guarded(self._prepare, message))
            elif isinstance(message, m.Call):
                self._pipe.send(_guarded(self._call, message))

    def _prepare(self, message: m.Prepare) -> m.Ready:
        import keras

        from hpo.training.bench import prepare
        from hpo.training.gpus import share_gpus

        spec = StudySpec.from_json(message.spec_json)
        if self._own_process:
            _set_threads(message.threads)
            share_gpus(counted=True)
        if spec.training.deterministic:
            _make_deterministic()
        self._bench = prepare(spec, message.project, message.shared, message.fingerprint)
        return m.Ready(
            data=self._bench.data.signature.fingerprint,
            builder=self._bench.builder.source_hash,
            keras=keras.__version__.partition(".")[0],
        )

    def _call(self, message: m.Call) -> m.Returned:
        from hpo.training.gpus import share_gpus

        if self._own_process:
            # Over in a moment, where a trainer stays.
            share_gpus(counted=False)
        module, _, name = message.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        return m.Returned(function(**message.arguments))

    def _train(self, run: m.TrialTask) -> m.Finished | m.Failed | m.Refused:
        from hpo.training.curves import draw_curve
        from hpo.training.trial import run_trial

        assert self._bench is not None
        channel = _PipeChannel(self._pipe)
        try:
            end = run_trial(self._bench, run, channel)
            title = f"trial {run.number}"
            files = draw_curve(end.progress, self._bench.spec.objective, title)
        except ArtifactsError as error:
            return m.Refused(type(error).__name__, str(error))
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            words = f"{type(error).__name__}: {error}"
            return m.Failed(words, traceback.format_exc(), channel.epochs)
        progress = end.progress
        return m.Finished(
            pruned=end.pruned,
            diverged=end.diverged,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
            value=progress.best_value,
            seconds=progress.seconds,
            checkpoint=end.checkpoint,
            files=files,
        )


class _PipeChannel:
    """A trial's channel to the study: over the pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.epochs = 0

    def suggest(self, name: str, parameter: Parameter) -> Scalar:
        answer = self._pipe.ask(m.Suggest(name, parameter))
        if isinstance(answer, m.Rejected):
            raise TrialError(answer.message)
        value: Scalar = answer.value
        return value

    def begin(self, begun: m.Begun) -> None:
        self.epochs = begun.epoch
        self._pipe.send(begun)

    def report(self, epoch: int, value: float) -> bool:
        self.epochs = epoch
        return bool(self._pipe.ask(m.Report(epoch, value)).prune)


def _guarded(work: Any, message: Any) -> Any:
    """The work's result, or Refused: an error never ends the trainer without a word."""
    try:
        return work(message)
    except HpoError as error:
        return m.Refused(type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        return m.Refused("HpoError", text)


def _set_threads(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _make_deterministic() -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
