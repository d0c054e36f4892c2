"""KerasTuner with Hyperband, the one of its tuners that gives trials up early."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.job import METRIC, REDUCTION_FACTOR, Job
from benchmarks.peers.with_kerastuner import run, with_events


def hyperband(job: Job, hypermodel: Any) -> Any:
    import keras_tuner

    tuner = with_events(keras_tuner.Hyperband)(
        hypermodel,
        objective=METRIC,
        max_epochs=job.epochs,
        factor=REDUCTION_FACTOR,
        # More than the trials are enough for; it ends with these.
        hyperband_iterations=job.trials,
        seed=job.seed,
        directory=".",
        project_name="peers",
    )
    # It takes no number of trials, but its chief heeds this one as that of every tuner.
    tuner.oracle.max_trials = job.trials
    return tuner


if __name__ == "__main__":
    run(hyperband)
