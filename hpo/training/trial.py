"""One trial in the trainer process: build, train epoch by epoch, report, checkpoint."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hpo.artifacts import Place
from hpo.data import Part, SearchData, open_search_data
from hpo.data.sharing import open_shared_data
from hpo.data.tensors import Tensors
from hpo.errors import BuilderError
from hpo.space import Suggest, Values
from hpo.space.hyperparameters import TrialHyperParameters
from hpo.spec import StudySpec
from hpo.spec.models import PlateauSchedule
from hpo.training.augment import make_augmentation
from hpo.training.builder import Builder, load_builder
from hpo.training.channel import Begun, Channel, TrialTask
from hpo.training.checkpoints import Checkpoint, CheckpointFolder
from hpo.training.compiling import (
    COMPILED_IN,
    Settings,
    base_rate,
    class_weights,
    compile_model,
    settle,
    targets_for,
    training_defaults,
    wants_one_hot,
)
from hpo.training.epochs import EpochRunner, forgotten_gradients
from hpo.training.gpus import used_device
from hpo.training.graphs import GraphFolder
from hpo.training.progress import Progress, follow_plateau, rate_factor, stops_early
from hpo.training.reuse import GraphCache, Structure
from hpo.training.seeding import begin_session, epoch_order, forget_draws, seed_epoch
from hpo.training.state import averaged, averages, state_variables


@dataclass(frozen=True)
class Bench:
    """What a trainer prepares once and uses for all of its trials.

    Attributes:
        folder: Where the trainers of this machine share their graphs.
    """

    spec: StudySpec
    data: SearchData
    builder: Builder
    folder: GraphFolder | None = None
    graphs: GraphCache = field(default_factory=GraphCache, init=False)
    tensors: Tensors = field(default_factory=Tensors, init=False)


@dataclass(frozen=True, eq=False)
class TrialModel:
    """A built and compiled model with the values that it was built from.

    Attributes:
        unused: Entries of the study file's space that change nothing, because the builder compiles
            its model and does not ask for them.
    """

    model: keras.Model
    values: Values
    settings: Settings
    unused: frozenset[str]
    hp: TrialHyperParameters


@dataclass(frozen=True, eq=False)
class TrialEnd:
    """How training went: its history and whether it was pruned."""

    progress: Progress
    pruned: bool
    checkpoint: Place | None


def prepare(
    spec: StudySpec, project: Path, shared: Path | None = None, fingerprint: str | None = None
) -> Bench:
    """Opens data and builder.

    Args:
        shared: Folder that the trainers of this machine share.
        fingerprint: Of the data, which may lie in that folder; None if nobody knows it yet.

    Raises:
        DataError, BuilderError: The study can't be trained here.
    """
    if shared is None:
        data = open_search_data(spec.data, project)
    else:
        data = open_shared_data(spec.data, project, shared, fingerprint)
    forget_draws()
    builder = load_builder(spec.model, data.signature, project)
    study = f"{spec.to_json()}\n{data.signature.fingerprint}"
    folder = None if shared is None else GraphFolder(shared / "graphs", study)
    return Bench(spec, data, builder, folder)


def build_model(bench: Bench, suggest: Suggest, seed: int) -> TrialModel:
    """A new, compiled model; equal seeds and values give equal weights."""
    begin_session(seed, bench.builder.settings)
    training = bench.spec.training
    values = Values(bench.spec.space, training_defaults(training), suggest)
    hp = TrialHyperParameters(values)
    model = bench.builder.build(hp)
    idle = set(COMPILED_IN) - set(values.taken) if model.compiled else set()
    settings = settle(values, training)
    compile_model(model, settings, training, bench.data.signature)
    return TrialModel(model, values, settings, frozenset(idle & set(bench.spec.space)), hp)


def run_trial(bench: Bench, task: TrialTask, channel: Channel) -> TrialEnd:
    """Runs a trial from its last checkpoint, or from the start, to its end.

    Raises:
        DivergedError: The loss or the objective became NaN or infinite.
        BuilderError: The builder makes another model than the one that the checkpoint is of.
        ArtifactsError: A checkpoint can't be written or read; the trial is not to blame.
        Exception: Whatever the builder or the training raised.
    """
    with forgotten_gradients():
        built = build_model(bench, channel.suggest, task.seed)
        run = _run_for(bench)(bench, task, built)
        run.restore()
        channel.begin(Begun(run.progress.epoch, built.model.count_params(), used_device()))
        pruned = run.repeat_reports(channel) or run.train(channel)
        return TrialEnd(run.progress, pruned, run.best_checkpoint())


def _run_for(bench: Bench) -> type[Run]:
    if bench.builder.own_fit is None:
        return GraphRun
    from hpo.training.own_fit import OwnFitRun

    return OwnFitRun


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

    def best_checkpoint(self) -> Place | None:
        """The best epoch's file; every other one is removed."""
        best = self.progress.best_epoch
        if best is None:
            return None
        self._checkpoints.keep_only({best})
        return self._checkpoints.path(best)

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
        # The study knows epochs that are trained again because their checkpoint was damaged.
        known = progress.epoch <= self._task.reported
        return not known and channel.report(progress.epoch, value)

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


class GraphRun(Run):
    """A trial that trains one epoch in one graph call."""

    def __init__(self, bench: Bench, task: TrialTask, built: TrialModel) -> None:
        traced = bench.graphs.traced(
            built.model, built.settings, lambda structure: make_runner(bench, built, structure)
        )
        super().__init__(bench, task, replace(built, model=traced.model))
        self._runner = traced.runner
        self._averages = averages(traced.model)
        self._rows = len(bench.data.train.y)

    def train(self, channel: Channel) -> bool:
        while not self.ended and self.progress.epoch < self._settings.epochs:
            if self._train_epoch(channel):
                return True
        return False

    def _seed_epoch(self, epoch: int) -> None:
        self._runner.seed(self._task.seed, epoch)

    def _train_epoch(self, channel: Channel) -> bool:
        started = time.perf_counter()
        self._begin_epoch()
        logs = self._runner.train(epoch_order(self._task.seed, self.progress.epoch + 1, self._rows))
        with self._averaged():
            logs |= self._runner.evaluate()
        return self._end_epoch(logs, started, channel)


def make_runner(
    bench: Bench, built: TrialModel, structure: Structure | None = None, *, traced: bool = True
) -> EpochRunner:
    """The model's epochs on the study's data, targets and weights as its loss wants them.

    Args:
        structure: Of a model whose graphs other trainers may have, or may use.
        traced: As for EpochRunner.
    """
    data = bench.data
    train = _rows_of(bench, built.model, "train", data.train)
    weights = class_weights(bench.spec.training, data.train.y, data.signature)
    if weights is not None:
        train = (*train, weights)
    validation = _rows_of(bench, built.model, "validation", data.validation)
    augment = make_augmentation(built.settings.augment, data.train.x)
    files = None
    if bench.folder is not None and structure is not None:
        files = bench.folder.of_structure(structure.written, structure.numbers)
    batch_size = built.settings.batch_size
    return EpochRunner(built.model, train, validation, batch_size, augment, files, traced=traced)


def _rows_of(bench: Bench, model: keras.Model, name: str, part: Part) -> tuple[Any, ...]:
    """Features and targets of a part, the same tensors for all models that want them so."""
    targets = f"{name} one-hot" if wants_one_hot(model) else f"{name} targets"
    return (
        bench.tensors.of(name, lambda: part.x),
        bench.tensors.of(targets, lambda: targets_for(model, part.y, bench.data.signature)),
    )


def _fits(model: keras.Model, state: list[Any], checkpoint: Checkpoint) -> bool:
    def shapes(arrays: Any) -> list[tuple[int, ...]]:
        return [tuple(array.shape) for array in arrays]

    same = shapes(model.weights) == shapes(checkpoint.weights)
    return same and shapes(state) == shapes(checkpoint.optimizer)
