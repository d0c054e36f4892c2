"""What a search costs over its bare training steps, when the model is large enough to rule.

`hpo run` works through a study of equally large networks. Before and after, the same epoch graph
runs bare in one process with as many threads as a trainer has. Trainers that cost nothing and do
not slow each other down would end after

    seconds of a bare epoch * epochs * trials / trainers

which is 1.00 in the table. Such a process also trains the same network with `model.fit`: what a
person has without any search. A machine that is faster or slower from minute to minute spoils that,
so the table has what the trials themselves say of their epochs, training and validation, too. It
goes to stderr, one line of JSON for each repeat to stdout:

    python -m benchmarks.overhead --trials 8 --epochs 5 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import mean

import numpy as np
from rich.console import Console

from benchmarks.peers.__main__ import ROOT, environment, measure
from benchmarks.peers.job import BATCH_SIZE, VALIDATION_BATCH_SIZE, Job
from benchmarks.peers.report import Row, show
from benchmarks.peers.with_hpo import study_file
from hpo.spec.models import FloatParameter, Parameter, Scalar

_TASK = "cnn"
_FIGURES = (
    "wall_seconds",
    "startup_seconds",
    "bare_seconds",
    "bare_validation_seconds",
    "bare_side_by_side_seconds",
    "in_epochs_seconds",
    "wall_over_epochs",
    "without_startup_over_epochs",
    "wall_over_bare",
    "without_startup_over_bare",
    "wall_over_side_by_side",
    "wall_over_bare_with_validation",
    "fit_seconds",
    "wall_over_fit",
)


def main() -> None:
    arguments = _arguments()
    job = Job(
        task=_TASK,
        trials=arguments.trials,
        epochs=arguments.epochs,
        seed=0,
        workers=arguments.trainers,
        pruning=False,
        steps_per_execution=1,
    )
    if arguments.bare:
        print(json.dumps(train_bare(_TASK, arguments.bare) | train_with_fit(_TASK, arguments.bare)))
        return
    rows: list[Row] = []
    for _ in range(arguments.repeats):
        rows.append(compare(job, arguments.bare_epochs))
        print(json.dumps(rows[-1]), flush=True)
    show("hpo run over bare training", rows, _FIGURES, Console(stderr=True))


def compare(job: Job, bare_epochs: int) -> Row:
    """A search between bare epochs: a machine that becomes slower does so in both."""
    before = _bare(job, bare_epochs, processes=1)
    together = _bare(job, bare_epochs, processes=job.workers)
    row = measure("hpo", job, target=1.0)
    after = _bare(job, bare_epochs, processes=1)
    epochs, trainers = job.trials * job.epochs, job.workers
    assert row["epochs_trained"] == epochs
    bare = epochs * mean(each["train"] for each in (*before, *after))
    validation = epochs * mean(each["validation"] for each in (*before, *after))
    fit = epochs * mean(each["fit"] for each in (*before, *after))
    side_by_side = epochs * mean(each["train"] for each in together)
    wall, startup = row["wall_seconds"], row["startup_seconds"]
    # All trials cost the same. The median leaves out those that trace.
    in_epochs = job.trials * row["in_epochs_of_a_trial"]
    return row | {
        "bare_seconds": round(bare, 2),
        "bare_validation_seconds": round(validation, 2),
        "bare_side_by_side_seconds": round(side_by_side, 2),
        "in_epochs_seconds": round(in_epochs, 2),
        "wall_over_epochs": round(wall * trainers / in_epochs, 3),
        "without_startup_over_epochs": round((wall - startup) * trainers / in_epochs, 3),
        "wall_over_bare": round(wall * trainers / bare, 3),
        "without_startup_over_bare": round((wall - startup) * trainers / bare, 3),
        "wall_over_side_by_side": round(wall * trainers / side_by_side, 3),
        "wall_over_bare_with_validation": round(wall * trainers / (bare + validation), 3),
        "fit_seconds": round(fit, 2),
        "wall_over_fit": round(wall * trainers / fit, 3),
    }


def train_bare(task: str, epochs: int) -> dict[str, float]:
    """Mean seconds of an epoch's training and of its validation, after one that warms up."""
    from hpo.spec import load_study_file
    from hpo.training.seeding import epoch_order
    from hpo.training.trial import build_model, make_runner, prepare

    bench = prepare(load_study_file(study_file(task)).spec, ROOT)
    # Any value will do: none of them changes what a step costs.
    runner = make_runner(bench, build_model(bench, lambda _, parameter: _low(parameter), seed=0))
    seconds: dict[str, list[float]] = {"train": [], "validation": []}
    for epoch in range(epochs + 1):
        order = epoch_order(0, epoch, len(bench.data.train.y))
        started = time.perf_counter()
        runner.train(order)
        trained = time.perf_counter()
        runner.evaluate()
        seconds["train"].append(trained - started)
        seconds["validation"].append(time.perf_counter() - trained)
    return {name: mean(each[1:]) for name, each in seconds.items()}


def train_with_fit(task: str, epochs: int) -> dict[str, float]:
    """Mean seconds of an epoch of `model.fit`, validation included, after one that warms up."""
    import keras
    import keras_tuner

    from benchmarks.cnn import build
    from hpo.data import open_search_data
    from hpo.spec import load_study_file

    data = open_search_data(load_study_file(study_file(task)).spec.data, ROOT)
    classes = data.signature.num_outputs
    assert isinstance(data.train.x, np.ndarray)
    model = build(keras_tuner.HyperParameters(), data.train.x.shape[1:], classes)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ends: list[float] = []
    model.fit(
        data.train.x,
        data.train.y,
        validation_data=(data.validation.x, data.validation.y),
        epochs=epochs + 1,
        batch_size=BATCH_SIZE,
        validation_batch_size=VALIDATION_BATCH_SIZE,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
        ],
        verbose=0,
    )
    return {"fit": (ends[-1] - ends[0]) / epochs}


def _low(parameter: Parameter) -> Scalar:
    assert isinstance(parameter, FloatParameter)
    return parameter.low


def _bare(job: Job, epochs: int, processes: int) -> Sequence[dict[str, float]]:
    """What each of so many processes at the same time measured."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--bare", str(epochs)]
    running = [
        subprocess.Popen(
            command, env=environment(job), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(processes)
    ]
    outputs = [process.communicate()[0] for process in running]
    return [json.loads(output) for output in outputs]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--trainers", type=int, default=2, help="trials at the same time")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bare-epochs", type=int, default=10, help="before, and again after")
    # What a process of this program's own is told.
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
