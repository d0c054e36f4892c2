"""Ray Tune: OptunaSearch and ASHA, as many trials at a time as workers, one CPU each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.job import (
    BATCH_SIZE,
    METRIC,
    MIN_RESOURCE,
    REDUCTION_FACTOR,
    VALIDATION_BATCH_SIZE,
    Job,
    record,
)
from benchmarks.peers.space import suggest


def main() -> None:
    job = Job.from_command_line()
    folder = Path.cwd()
    ray.init(
        num_cpus=job.workers,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / "ray"),
    )
    asha = ASHAScheduler(
        max_t=job.epochs,
        grace_period=min(MIN_RESOURCE, job.epochs),
        reduction_factor=REDUCTION_FACTOR,
    )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_model, job=job), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=OptunaSearch(suggest, metric=METRIC, mode="max", seed=job.seed),
            scheduler=asha if job.pruning else FIFOScheduler(),
            num_samples=job.trials,
            max_concurrent_trials=job.workers,
            # A process for every trial would import Keras every time.
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="peers", storage_path=str(folder / "results"), verbose=0),
    )
    try:
        tuner.fit()
    finally:
        ray.shutdown()


def train_model(values: dict[str, Any], job: Job) -> None:
    """One trial, in one of Ray's processes."""
    import keras

    from benchmarks.peers import data
    from benchmarks.peers.model import EpochEvents, make_model

    trial = tune.get_context().get_trial_id()

    class Report(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            tune.report({METRIC: float(logs[METRIC]), "epoch": epoch + 1})

    record("begin", trial)
    parts = getattr(data, job.task)()
    train, validation = parts["train"], parts["validation"]
    shape, classes = train.x.shape[1:], int(train.y.max()) + 1
    keras.backend.clear_session()
    try:
        make_model(values, shape, classes, job.steps_per_execution).fit(
            *train,
            validation_data=tuple(validation),
            epochs=job.epochs,
            batch_size=BATCH_SIZE,
            validation_batch_size=VALIDATION_BATCH_SIZE,
            callbacks=[EpochEvents(trial), Report()],
            verbose=0,
        )
    finally:
        record("end", trial)


if __name__ == "__main__":
    main()
