"""KerasTuner: its distributed mode, one chief and workers, Bayesian optimization."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.peers import data
from benchmarks.peers.job import BATCH_SIZE, METRIC, VALIDATION_BATCH_SIZE, Job, record


def main() -> None:
    job = Job.from_command_line()
    if "KERASTUNER_TUNER_ID" in os.environ:
        search(job)
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


def search(job: Job) -> None:
    """What each process runs, the chief too: there `search` serves the workers."""
    import keras_tuner

    from benchmarks.peers.model import EpochEvents, build

    class Tuner(keras_tuner.BayesianOptimization):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            record("begin", trial.trial_id)
            events = EpochEvents(trial.trial_id)
            histories = super().run_trial(trial, *args, callbacks=[events], **kwargs)
            record("end", trial.trial_id)
            return histories

    parts = getattr(data, job.task)()
    train, validation = parts["train"], parts["validation"]
    hypermodel = functools.partial(
        build,
        input_shape=train.x.shape[1:],
        num_outputs=int(train.y.max()) + 1,
        steps_per_execution=job.steps_per_execution,
    )
    tuner = Tuner(
        hypermodel,
        objective=METRIC,
        max_trials=job.trials,
        seed=job.seed,
        directory=".",
        project_name="peers",
    )
    tuner.search(
        *train,
        validation_data=tuple(validation),
        epochs=job.epochs,
        batch_size=BATCH_SIZE,
        validation_batch_size=VALIDATION_BATCH_SIZE,
        verbose=0,
    )


def _start(job: Job, name: str, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
    }
    command = [sys.executable, "-m", "benchmarks.peers.with_kerastuner", json.dumps(asdict(job))]
    return subprocess.Popen(command, env=environment)


if __name__ == "__main__":
    main()
