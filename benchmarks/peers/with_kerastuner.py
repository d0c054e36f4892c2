"""KerasTuner: its distributed mode, one chief and workers, Bayesian optimization."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers import data
from benchmarks.peers.job import BATCH_SIZE, METRIC, VALIDATION_BATCH_SIZE, Job, record


def main() -> None:
    run(bayesian_optimization)


def bayesian_optimization(job: Job, hypermodel: Any) -> Any:
    """The tuner that takes a number of trials and learns from them; it does not prune."""
    import keras_tuner

    return with_events(keras_tuner.BayesianOptimization)(
        hypermodel,
        objective=METRIC,
        max_trials=job.trials,
        # As many as TPE's; KerasTuner's own would leave 20 trials to chance.
        num_initial_points=10,
        seed=job.seed,
        directory=".",
        project_name="peers",
    )


def run(make_tuner: Callable[[Job, Any], Any]) -> None:
    """Starts a chief and workers, which run this module again and find out what they are."""
    job = Job.from_command_line()
    if "KERASTUNER_TUNER_ID" in os.environ:
        search(job, make_tuner)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chief, *workers = [
        _start(job, name, port) for name in ("chief", *(f"tuner{i}" for i in range(job.workers)))
    ]
    for worker in workers:
        worker.wait()
    # The chief looks for its end every 20 s.
    chief.terminate()
    chief.wait()
    sys.exit(max(abs(worker.returncode) for worker in workers))


def search(job: Job, make_tuner: Callable[[Job, Any], Any]) -> None:
    """What each process runs, the chief too: there `search` serves the workers."""
    from benchmarks.peers.model import build

    parts = getattr(data, job.task)()
    train, validation = parts["train"], parts["validation"]
    hypermodel = functools.partial(
        build,
        input_shape=train.x.shape[1:],
        num_outputs=int(train.y.max()) + 1,
        steps_per_execution=job.steps_per_execution,
    )
    make_tuner(job, hypermodel).search(
        *train,
        validation_data=tuple(validation),
        epochs=job.epochs,
        batch_size=BATCH_SIZE,
        validation_batch_size=VALIDATION_BATCH_SIZE,
        verbose=0,
    )


def with_events(tuner: Any) -> Any:
    """The tuner class, writing events."""
    from benchmarks.peers.model import EpochEvents

    class Tuner(tuner):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            record("begin", trial.trial_id)
            events = EpochEvents(trial.trial_id)
            histories = super().run_trial(trial, *args, callbacks=[events], **kwargs)
            record("end", trial.trial_id)
            return histories

    return Tuner


def _start(job: Job, name: str, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
    }
    module = sys.modules["__main__"].__spec__
    assert module is not None
    command = [sys.executable, "-m", module.name, *job.arguments()]
    return subprocess.Popen(command, env=environment)


if __name__ == "__main__":
    main()
