"""A trial while it trains: its epochs, reports and checkpoints, whoever trains an epoch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from hpo.artifacts import Place
from hpo.errors import BuilderError
from hpo.spec.models import PlateauSchedule
from hpo.training.bench import Bench, TrialModel
from hpo.training.channel import Channel, TrialTask
from hpo.training.checkpoints import Checkpoint, CheckpointFolder
from hpo.training.compiling import base_rate
from hpo.training.progress import Progress, follow_plateau, rate_factor, stops_early
from hpo.training.seeding import seed_epoch
from hpo.training.state import averaged, state_variables


class Run(ABC):
    """The state of a trial while it trains.

    Attributes:
        ended: No further epoch is to be trained.
    """

    def __init__(self, bench: Bench, task: TrialTask, built: TrialModel) -> None:
        self._objective = bench.spec.objective
        self._training = bench.spec.training
        self._task = task
        self._model, self._settings = built.model, built.settings
        self._checkpoints = CheckpointFolder(task.folder, task.token)
        self._rate = base_rate(built.model)
        self._averages = False
        self.ended = False
        self.progress = Progress()

    def restore(self) -> None:
        """Takes the trial to where its last checkpoint was written."""
        checkpoint = self._read_checkpoint()
        if checkpoint is not None:
            self._assign(checkpoint)

    @abstractmethod
    def train(self, channel: Channel) -> bool:
        """Trains to the end; whether the trial was pruned."""

    def _read_checkpoint(self) -> Checkpoint | None:
        checkpoint = self._checkpoints.latest()
        if checkpoint is not None:
            content = dict(checkpoint.progress)
            self.ended = content.pop("ended")
            self.progress = Progress(**content)
        return checkpoint

    def _assign(self, checkpoint: Checkpoint) -> None:
        state = self._state()
        if not _fits(self._model, state, checkpoint):
            raise BuilderError(
                f"trial {self._task.number} can't go on from epoch {checkpoint.epoch}: the builder "
                "makes another model than before; has it changed since the trial began?"
            )
        for variable, value in zip(self._model.weights, checkpoint.weights, strict=True):
            variable.assign(value)
        for variable, value in zip(state, checkpoint.optimizer, strict=True):
            variable.assign(value)

    def _state(self) -> list[Any]:
        """What training goes on from; the weights too, where the checkpoint's are averages."""
        weights = self._model.trainable_variables if self._averages else ()
        return [*state_variables(self._model), *weights]

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside, the model is the one that the trial would be exported with."""
        return averaged(self._model) if self._averages else nullcontext()

    def repeat_reports(self, channel: Channel) -> bool:
        """Reports epochs that a checkpoint has and the study has not; whether it was pruned."""
        metric = self._objective.metric
        for epoch in range(self._task.reported + 1, self.progress.epoch + 1):
            if channel.report(epoch, self.progress.history[epoch - 1][metric]):
                return True
        return False

    @property
    def best_checkpoint(self) -> Place | None:
        """The best epoch's file; the last one's stays beside it until the study knows the end."""
        best = self.progress.best_epoch
        return None if best is None else self._checkpoints.path(best)

    def _begin_epoch(self) -> None:
        self._seed_epoch(self.progress.epoch + 1)
        self._set_rate()

    def _seed_epoch(self, epoch: int) -> None:
        seed_epoch(self._model, self._task.seed, epoch)

    def _end_epoch(self, logs: dict[str, float], started: float, channel: Channel) -> bool:
        """Takes an epoch in, writes a checkpoint, reports; whether the trial is to be pruned."""
        progress = self.progress
        value = progress.add(logs, self._objective)
        progress.seconds += time.perf_counter() - started
        if isinstance(self._training.schedule, PlateauSchedule):
            follow_plateau(progress, value, self._training.schedule, self._objective)
        rule = self._training.early_stopping
        if rule is not None and stops_early(progress, value, rule, self._objective):
            self.ended = True
        self._save()
        return channel.report(progress.epoch, value)

    def _set_rate(self) -> None:
        if self._rate is not None and self._training.schedule is not None:
            factor = rate_factor(self._training.schedule, self.progress, self._settings.epochs)
            self._model.optimizer.learning_rate.assign(self._rate * factor)

    def _save(self) -> None:
        progress = self.progress
        state = [np.asarray(variable) for variable in self._state()]
        if self._averages:
            # Arrays may be the variables' memory.
            state = [array.copy() for array in state]
        with self._averaged():
            weights = [np.asarray(weight) for weight in self._model.weights]
            content = progress.to_dict() | {"ended": self.ended}
            self._checkpoints.save(progress.epoch, weights, state, content)
        self._checkpoints.keep_only({progress.epoch, progress.best_epoch or 0})


def _fits(model: keras.Model, state: list[Any], checkpoint: Checkpoint) -> bool:
    def shapes(arrays: Any) -> list[tuple[int, ...]]:
        return [tuple(array.shape) for array in arrays]

    same = shapes(model.weights) == shapes(checkpoint.weights)
    return same and shapes(state) == shapes(checkpoint.optimizer)
