"""Optuna by hand: SQLite, processes that take trials from one budget, `model.fit`, a pruner."""

from __future__ import annotations

import multiprocessing as mp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from benchmarks.peers import data
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

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_NAME = "peers"


def main() -> None:
    job = Job.from_command_line()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(storage=_storage(), study_name=_NAME, direction="maximize")
    # This process never imports Keras, so its children may be forked and import it side by side.
    context = mp.get_context("fork")
    left = context.Value("i", job.trials)
    workers = [context.Process(target=work, args=(job, i, left)) for i in range(job.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def work(job: Job, index: int, left: Synchronized[int]) -> None:
    """Trains until no trial is left; half of `n_trials` each would leave one idle at the end."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=MIN_RESOURCE, reduction_factor=REDUCTION_FACTOR
    )
    study = optuna.load_study(
        storage=_storage(),
        study_name=_NAME,
        sampler=optuna.samplers.TPESampler(seed=job.workers * job.seed + index),
        pruner=pruner if job.pruning else optuna.pruners.NopPruner(),
    )
    objective = make_objective(job)
    while _take(left):
        study.optimize(objective, n_trials=1)


def make_objective(job: Job) -> Any:
    import keras
    from optuna_integration import KerasPruningCallback

    from benchmarks.peers.model import EpochEvents, make_model

    parts = getattr(data, job.task)()
    train, validation = parts["train"], parts["validation"]
    shape, classes = train.x.shape[1:], int(train.y.max()) + 1

    class Pruning(KerasPruningCallback):
        """Counts epochs from one, so that the rungs are those of the other contestants."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_end(epoch + 1, logs)

    def objective(trial: optuna.Trial) -> float:
        record("begin", trial.number)
        keras.backend.clear_session()
        model = make_model(suggest(trial), shape, classes, job.steps_per_execution)
        try:
            history = model.fit(
                *train,
                validation_data=tuple(validation),
                epochs=job.epochs,
                batch_size=BATCH_SIZE,
                validation_batch_size=VALIDATION_BATCH_SIZE,
                callbacks=[EpochEvents(trial.number), Pruning(trial, METRIC)],
                verbose=0,
            )
            return float(max(history.history[METRIC]))
        finally:
            record("end", trial.number)

    return objective


def _take(left: Synchronized[int]) -> bool:
    with left.get_lock():
        left.value -= 1
        return left.value >= 0


def _storage() -> optuna.storages.RDBStorage:
    """SQLite, waiting for its lock instead of failing."""
    url = f"sqlite:///{Path('optuna.db').absolute()}"
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 100}})


if __name__ == "__main__":
    main()
