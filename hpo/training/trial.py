"""One trial in the trainer process: build, train epoch by epoch, report, checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from hpo.artifacts import Place
from hpo.errors import DivergedError
from hpo.training.bench import Bench, TrialModel, build_model, make_runner
from hpo.training.channel import Begun, Channel, TrialTask
from hpo.training.epochs import forgotten_gradients
from hpo.training.gpus import used_device
from hpo.training.own_fit import OwnFitRun
from hpo.training.progress import Progress
from hpo.training.run import Run
from hpo.training.seeding import epoch_order
from hpo.training.state import averages


@dataclass(frozen=True, eq=False)
class TrialEnd:
    """How training went.

    Attributes:
        diverged: What became NaN or infinite, and when; None if nothing did.
        checkpoint: File of the best epoch; None when no epoch has ended.
    """

    progress: Progress
    pruned: bool
    diverged: str | None
    checkpoint: Place | None


def run_trial(bench: Bench, task: TrialTask, channel: Channel) -> TrialEnd:
    """Runs a trial from its last checkpoint, or from the start, to its end.

    Raises:
        BuilderError: The builder makes another model than the one that the checkpoint is of.
        ArtifactsError: A checkpoint can't be written or read; the trial is not to blame.
        Exception: Whatever the builder or the training raised.
    """
    with forgotten_gradients():
        built = build_model(bench, channel.suggest, task.seed)
        bench.graphs.watch(built.model)
        run = (GraphRun if bench.builder.own_fit is None else OwnFitRun)(bench, task, built)
        run.restore()
        channel.begin(Begun(run.progress.epoch, built.model.count_params(), used_device()))
        pruned, diverged = task.pruned, None
        try:
            pruned = pruned or run.repeat_reports(channel) or run.train(channel)
        except DivergedError as error:
            diverged = str(error)
        return TrialEnd(run.progress, pruned, diverged, run.best_checkpoint)


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
