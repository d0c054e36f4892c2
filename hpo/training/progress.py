"""What a trial remembers from epoch to epoch, and the rules that read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hpo.errors import DivergedError, TrialError
from hpo.spec.models import (
    CosineSchedule,
    EarlyStopping,
    ExponentialSchedule,
    Objective,
    PlateauSchedule,
    Schedule,
    StepSchedule,
)


@dataclass
class Progress:
    """The state of a trial beside its model; part of every checkpoint.

    Attributes:
        history: The metrics of each epoch, from the first on.
        best_epoch: From 1; None before the first epoch has ended.
        scale: What a plateau schedule has made of the learning rate so far.
        plateau_wait: Epochs since the plateau schedule last saw an improvement.
        plateau_best: The value that it compares with.
        calls: Epochs of each call of `model.fit` that has ended, where a HyperModel brings its own
            `fit`.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    best_epoch: int | None = None
    best_value: float | None = None
    scale: float = 1.0
    plateau_wait: int = 0
    plateau_best: float | None = None
    stopping_wait: int = 0
    stopping_best: float | None = None
    calls: list[int] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def to_dict(self) -> dict[str, Any]:
        # No copy of the history, which would be made each epoch of all epochs before.
        return dict(vars(self))

    def add(self, logs: dict[str, float], objective: Objective) -> float:
        """Takes an epoch's metrics in; the objective's value.

        Raises:
            TrialError: The objective's metric is not among them.
            DivergedError: The loss or the objective is NaN or infinite.
        """
        epoch = self.epoch + 1
        if objective.metric not in logs:
            raise TrialError(
                f"the metric {objective.metric!r} was not reported; reported: {', '.join(logs)}"
            )
        for name in ("loss", objective.metric):
            if not math.isfinite(logs.get(name, 0.0)):
                raise DivergedError(f"{name} became {logs[name]} in epoch {epoch}")
        value = logs[objective.metric]
        self.history.append(logs)
        if self.best_value is None or improves(value, self.best_value, objective):
            self.best_epoch, self.best_value = epoch, value
        return value


def improves(value: float, best: float, objective: Objective, min_delta: float = 0.0) -> bool:
    """Whether `value` beats `best` by more than `min_delta`."""
    gain = value - best if objective.direction == "maximize" else best - value
    return gain > min_delta


def stops_early(
    progress: Progress, value: float, rule: EarlyStopping, objective: Objective
) -> bool:
    """Counts an epoch; whether the objective has not improved for `patience` epochs."""
    if progress.epoch <= rule.start_epoch:
        return False
    best = progress.stopping_best
    if best is None or improves(value, best, objective, rule.min_delta):
        progress.stopping_best, progress.stopping_wait = value, 0
        return False
    progress.stopping_wait += 1
    return progress.stopping_wait >= rule.patience


def follow_plateau(
    progress: Progress, value: float, rule: PlateauSchedule, objective: Objective
) -> None:
    """Counts an epoch; lowers the learning rate's scale after `patience` without improvement."""
    best = progress.plateau_best
    if best is None or improves(value, best, objective, rule.min_delta):
        progress.plateau_best, progress.plateau_wait = value, 0
        return
    progress.plateau_wait += 1
    if progress.plateau_wait >= rule.patience:
        progress.scale *= rule.factor
        progress.plateau_wait = 0


def rate_factor(schedule: Schedule | None, progress: Progress, epochs: int) -> float:
    """What the learning rate of the next epoch is multiplied with."""
    done = progress.epoch
    if isinstance(schedule, CosineSchedule):
        return _cosine(schedule, done, epochs)
    if isinstance(schedule, ExponentialSchedule):
        return float(schedule.decay**done)
    if isinstance(schedule, StepSchedule):
        return float(schedule.factor ** (done // schedule.every))
    return progress.scale


def _cosine(schedule: CosineSchedule, done: int, epochs: int) -> float:
    """Loshchilov and Hutter, SGDR, 2017, one cycle; after a linear warm-up."""
    if done < schedule.warmup:
        return (done + 1) / (schedule.warmup + 1)
    share = (done - schedule.warmup) / max(1, epochs - schedule.warmup)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * share))
