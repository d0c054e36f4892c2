"""What a search costs over its bare steps, when the model is large enough to rule.

`hpo run` works through a study of equally large networks. As many processes as it has trainers,
with as many threads, do nothing but epochs of the same network, in three ways: Keras's own training
and validation steps, traced, one call a batch, as a loop by hand has them (`bare`); the graph of an
epoch that a trainer runs (`graph`); and `model.fit`. A search that costs nothing would end after

    seconds of a bare epoch * epochs * trials / trainers

which is 1.00 in the table. A machine's cores are faster and slower from minute to minute, by more
than what is to be measured. So search and epochs go by turns of some seconds: while one of them
runs, the others are stopped. The table goes to stderr, a line of JSON for each repeat to stdout:

    python -m benchmarks.overhead --trials 24 --epochs 24
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from statistics import mean
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
import optuna
import psutil
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.peers.__main__ import ROOT, cores, environment
from benchmarks.peers.job import BATCH_SIZE, VALIDATION_BATCH_SIZE, Job
from benchmarks.peers.report import Row, show
from benchmarks.peers.with_hpo import study_file, study_text
from hpo.spec.models import FloatParameter, Parameter, Scalar

if TYPE_CHECKING:
    from hpo.data import SearchData
    from hpo.training.bench import Bench, TrialModel

_TASK = "cnn"
# Of a turn.
_SEARCH_SECONDS, _EPOCHS = 20.0, {"bare": 5, "graph": 5, "fit": 3}
# A search that is stopped for a turn of the others does not lose its trials.
_LEASE_SECONDS = 600
# A command just after other processes have begun with TensorFlow takes a second more.
_REST_SECONDS = 10.0
# Of a process that failed, in characters.
_LAST_WORDS = 4000
_FIGURES = (
    "turns",
    "wall_seconds",
    "startup_seconds",
    "bare_training_seconds",
    "bare_validation_seconds",
    "graph_training_seconds",
    "graph_validation_seconds",
    "fit_seconds",
    "wall_over_bare",
    "wall_over_bare_training",
    "wall_over_graph",
    "without_startup_over_graph",
    "wall_over_fit",
)


def main() -> None:
    arguments = _arguments()
    if arguments.epochs_alone:
        train_when_told()
        return
    job = Job(
        task=_TASK,
        trials=arguments.trials,
        epochs=arguments.epochs,
        seed=0,
        workers=arguments.trainers,
        pruning=False,
        steps_per_execution=1,
    )
    for end in (signal.SIGTERM, signal.SIGHUP):
        # Otherwise the search would stay behind, stopped.
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    rows: list[Row] = []
    for _ in range(arguments.repeats):
        rows.append(compare(job))
        print(json.dumps(rows[-1]), flush=True)
    show("hpo run over bare steps", rows, _FIGURES, Console(stderr=True))


def compare(job: Job) -> Row:
    """One search, and epochs alone in its pauses and after it."""
    load = os.getloadavg()[0]
    measured: defaultdict[str, list[float]] = defaultdict(list)
    with ExitStack() as ends:
        alone = [ends.enter_context(EpochsAlone(job)) for _ in range(job.workers)]
        # Loads the data, builds and traces.
        _turn_of(alone)
        time.sleep(_REST_SECONDS)
        search = ends.enter_context(_Search(job))
        turns, ended = 0, False
        while not ended:
            ended = search.ran_to_its_end()
            turns += 1
            for name, value in _turn_of(alone):
                measured[name].append(value)
        wall, startup = search.seconds, search.startup_seconds()
    seconds = {name: job.trials * job.epochs * mean(each) for name, each in measured.items()}
    bare = seconds["bare_training"] + seconds["bare_validation"]
    graph = seconds["graph_training"] + seconds["graph_validation"]
    of_trainers = wall * job.workers
    return {
        "contestant": "hpo",
        "load_before": round(load, 2),
        "cores": cores(),
        **asdict(job),
        "turns": turns,
        "wall_seconds": round(wall, 2),
        "startup_seconds": round(startup, 2),
        **{f"{name}_seconds": round(each, 2) for name, each in seconds.items()},
        "wall_over_bare": round(of_trainers / bare, 3),
        "wall_over_bare_training": round(of_trainers / seconds["bare_training"], 3),
        "wall_over_graph": round(of_trainers / graph, 3),
        "without_startup_over_graph": round((wall - startup) * job.workers / graph, 3),
        "wall_over_fit": round(of_trainers / seconds["fit"], 3),
    }


def _turn_of(alone: Sequence[EpochsAlone]) -> list[tuple[str, float]]:
    """What all of these at the same time measured, by name."""
    found: list[tuple[str, float]] = []
    for kind, epochs in _EPOCHS.items():
        for process in alone:
            process.tell(kind, epochs)
        for process in alone:
            found += process.answer().items()
    return found


class _Search:
    """`hpo run` in a folder of its own, stopped whenever it is not its turn."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.seconds = 0.0

    def __enter__(self) -> _Search:
        self._folder = tempfile.TemporaryDirectory(prefix="overhead-")
        folder = Path(self._folder.name)
        (folder / "study.yaml").write_text(study_text(self._job))
        self._storage = f"sqlite:///{folder / 'hpo.db'}"
        command = [sys.executable, "-m", "hpo", "run", "study.yaml"]
        command += ["--workers", str(self._job.workers), "--lease", str(_LEASE_SECONDS)]
        command += ["--no-export", "--project", str(ROOT)]
        command += ["--storage", self._storage, "--artifacts", str(folder / "artifacts")]
        self._log = (folder / "log").open("w+")
        self._began = time.time()
        self._process = psutil.Popen(
            command, cwd=folder, env=environment(self._job), stdout=self._log, stderr=self._log
        )
        self._stopped: list[psutil.Process] = []
        return self

    def __exit__(self, *_: object) -> None:
        # There is something left of it where a turn of the others has failed.
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [*self._process.children(recursive=True), self._process]:
                process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def ran_to_its_end(self) -> bool:
        """Lets it run for a turn; whether it has ended.

        Raises:
            RuntimeError: It failed; repeats its last words.
        """
        started = time.perf_counter()
        _each(self._stopped, psutil.Process.resume)
        try:
            code = self._process.wait(_SEARCH_SECONDS)
        except psutil.TimeoutExpired:
            # The command first, so that it starts nothing that would not be stopped.
            self._process.suspend()
            self._stopped = [self._process, *self._process.children(recursive=True)]
            _each(self._stopped, psutil.Process.suspend)
            return False
        finally:
            self.seconds += time.perf_counter() - started
        if code != 0:
            raise RuntimeError(f"hpo run ended with exit code {code}:\n{_last_words(self._log)}")
        return True

    def startup_seconds(self) -> float:
        """From the command to its first trial, which is in its first turn.

        Raises:
            RuntimeError: It has not trained what it was to train.
        """
        [name] = optuna.get_all_study_names(self._storage)
        trials = optuna.load_study(study_name=name, storage=self._storage).trials
        reports = [len(trial.intermediate_values) for trial in trials]
        if reports != [self._job.epochs] * self._job.trials:
            raise RuntimeError(f"epochs of the trials: {reports}")
        begins = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
        return min(begins).replace(tzinfo=UTC).timestamp() - self._began


class EpochsAlone:
    """A process that does nothing but the epochs that it is told to do."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> EpochsAlone:
        self._log = tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "benchmarks.overhead", "--epochs-alone"]
        self._process = subprocess.Popen(
            command,
            env=environment(self._job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        # What it has not taken out of its pipe is lost.
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._log.close()

    def tell(self, kind: str, epochs: int) -> None:
        assert self._process.stdin is not None
        # One that has ended says so at the answer.
        with contextlib.suppress(BrokenPipeError):
            print(kind, epochs, file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, float]:
        """Mean seconds of the epochs that it was told to do, by name.

        Raises:
            RuntimeError: It has ended; repeats its last words.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code, words = self._process.wait(), _last_words(self._log)
            raise RuntimeError(f"a process of bare epochs ended with exit code {code}:\n{words}")
        found: dict[str, float] = json.loads(line)
        return found


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-_LAST_WORDS:]


def _each(processes: Sequence[psutil.Process], do: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        # Some end between two turns.
        with contextlib.suppress(psutil.NoSuchProcess):
            do(process)


def train_when_told() -> None:
    """Reads a kind and a number of epochs from each line, and writes their mean seconds."""
    from hpo.spec import load_study_file
    from hpo.training.bench import prepare

    bench = prepare(load_study_file(study_file(_TASK)).spec, ROOT)
    ways: dict[str, Way] = {"bare": StepsByHand(bench), "graph": GraphOfAnEpoch(bench)}
    fit = _fit_of(bench.data)
    for line in sys.stdin:
        kind, epochs = line.split()
        if kind == "fit":
            found = {"fit": fit(int(epochs))}
        else:
            parts = _timed(ways[kind], int(epochs))
            found = {f"{kind}_{part}": each for part, each in parts.items()}
        print(json.dumps(found), flush=True)


class Way(Protocol):
    """A way to train an epoch on the rows in this order, and to validate after it."""

    rows: int

    def train(self, order: NDArray[np.int32]) -> dict[str, float]: ...

    def validate(self) -> dict[str, float]: ...


class StepsByHand:
    """Keras's steps on batches of tensors, one call each: what a loop by hand has."""

    def __init__(self, bench: Bench) -> None:
        import tensorflow as tf

        self._model = _built(bench).model
        train, validation = bench.data.train, bench.data.validation
        self._x, self._y = tf.constant(train.x), tf.constant(train.y)
        self._validation = tf.constant(validation.x), tf.constant(validation.y)
        self.rows = len(train.y)
        # The last batch has fewer rows.
        self._train_step = tf.function(self._model.train_step, reduce_retracing=True)
        self._test_step = tf.function(self._model.test_step)

    def train(self, order: NDArray[np.int32]) -> dict[str, float]:
        import tensorflow as tf

        self._model.reset_metrics()
        for start in range(0, len(order), BATCH_SIZE):
            rows = tf.constant(order[start : start + BATCH_SIZE])
            logs = self._train_step((tf.gather(self._x, rows), tf.gather(self._y, rows)))
        return {name: float(value) for name, value in logs.items()}

    def validate(self) -> dict[str, float]:
        self._model.reset_metrics()
        logs = self._test_step(self._validation)
        return {f"val_{name}": float(value) for name, value in logs.items()}


class GraphOfAnEpoch:
    """As a trainer does, and nothing between the epochs."""

    def __init__(self, bench: Bench) -> None:
        from hpo.training.bench import make_runner

        runner = make_runner(bench, _built(bench))
        self.train, self.validate = runner.train, runner.evaluate
        self.rows = len(bench.data.train.y)


def _built(bench: Bench) -> TrialModel:
    from hpo.training.bench import build_model

    # Any value will do: none of them changes what a step costs.
    return build_model(bench, lambda _, parameter: _low(parameter), seed=0)


def _timed(way: Way, epochs: int) -> dict[str, float]:
    from hpo.training.seeding import epoch_order

    training, validation = 0.0, 0.0
    for epoch in range(epochs):
        order = epoch_order(0, epoch, way.rows)
        started = time.perf_counter()
        way.train(order)
        trained = time.perf_counter()
        way.validate()
        training += trained - started
        validation += time.perf_counter() - trained
    return {"training": training / epochs, "validation": validation / epochs}


def _fit_of(data: SearchData) -> Callable[[int], float]:
    """The same network with `model.fit`, validation included: mean seconds of so many epochs."""
    import keras_tuner

    from benchmarks.cnn import build

    assert isinstance(data.train.x, np.ndarray)
    classes = data.signature.num_outputs
    model = build(keras_tuner.HyperParameters(), data.train.x.shape[1:], classes)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def fit(epochs: int) -> float:
        started = time.perf_counter()
        model.fit(
            data.train.x,
            data.train.y,
            validation_data=(data.validation.x, data.validation.y),
            epochs=epochs,
            batch_size=BATCH_SIZE,
            validation_batch_size=VALIDATION_BATCH_SIZE,
            verbose=0,
        )
        return (time.perf_counter() - started) / epochs

    return fit


def _low(parameter: Parameter) -> Scalar:
    assert isinstance(parameter, FloatParameter)
    return parameter.low


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--trainers", type=int, default=2, help="trials at the same time")
    parser.add_argument("--repeats", type=int, default=1)
    # What a process of this program's own is told.
    parser.add_argument("--epochs-alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
