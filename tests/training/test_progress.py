from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hpo.errors import DivergedError, TrialError
from hpo.spec.models import (
    CosineSchedule,
    EarlyStopping,
    ExponentialSchedule,
    Objective,
    PlateauSchedule,
    StepSchedule,
)
from hpo.training.progress import Progress, follow_plateau, rate_factor, stops_early

HIGHEST = Objective(metric="val_accuracy", direction="maximize")
LOWEST = Objective(metric="val_loss", direction="minimize")


def after(values: list[float], objective: Objective = LOWEST) -> Progress:
    progress = Progress()
    for value in values:
        progress.add({"loss": 1.0, objective.metric: value}, objective)
    return progress


@pytest.mark.parametrize(("objective", "best"), [(HIGHEST, (2, 0.9)), (LOWEST, (3, 0.1))])
def test_the_first_of_the_best_epochs_counts(objective: Objective, best: tuple[int, float]) -> None:
    progress = after([0.5, 0.9, 0.1, 0.9, 0.1], objective)
    assert (progress.best_epoch, progress.best_value) == best


def test_progress_survives_json() -> None:
    progress = after([0.5, 0.25])
    progress.scale, progress.stopping_best = 0.1, 1 / 3
    assert Progress(**json.loads(json.dumps(progress.to_dict()))) == progress


@pytest.mark.parametrize("logs", [{"loss": math.nan, "val_loss": 1.0}, {"val_loss": math.inf}])
def test_what_is_not_finite_ends_the_trial(logs: dict[str, float]) -> None:
    progress = after([0.5])
    with pytest.raises(DivergedError, match=r"loss became (nan|inf) in epoch 2"):
        progress.add(logs, LOWEST)
    assert progress.epoch == 1


def test_another_metric_may_be_nan() -> None:
    assert Progress().add({"val_loss": 1.0, "auc": math.nan}, LOWEST) == 1.0


def test_a_metric_that_is_not_reported() -> None:
    with pytest.raises(TrialError, match="'val_loss' was not reported; reported: loss, accuracy"):
        Progress().add({"loss": 1.0, "accuracy": 0.5}, LOWEST)


def stops_after(values: list[float], **rule: Any) -> int | None:
    """The epoch that stops, as the trial counts them."""
    progress = Progress()
    for epoch, value in enumerate(values, start=1):
        progress.add({"val_loss": value}, LOWEST)
        if stops_early(progress, value, EarlyStopping(**rule), LOWEST):
            return epoch
    return None


def test_early_stopping_by_patience() -> None:
    assert stops_after([5, 4, 4, 4, 1], patience=2) == 4
    assert stops_after([5, 4, 4, 3, 3, 3], patience=2) == 6
    assert stops_after([5, 4, 3, 2], patience=1) is None


def test_early_stopping_by_min_delta() -> None:
    assert stops_after([5, 4.9, 4.8, 4.7], patience=3, min_delta=0.5) == 4
    # Small steps count together, from the best that was far enough from the one before.
    assert stops_after([5, 4.75, 4.25, 4.0], patience=2, min_delta=0.5) is None


def test_early_stopping_begins_after_its_start_epoch() -> None:
    assert stops_after([1, 5, 4, 5, 5], patience=2, start_epoch=2) == 5


@pytest.mark.keras
def test_early_stopping_as_in_keras() -> None:
    import keras
    import numpy as np

    values = np.random.default_rng(0).uniform(size=(30, 20))
    for patience, start in ((2, 0), (3, 4)):
        for row in values:
            theirs = keras.callbacks.EarlyStopping(
                "val_loss", min_delta=0.05, patience=patience, start_from_epoch=start, mode="min"
            )
            model = keras.Sequential()
            model.stop_training = False
            theirs.set_model(model)
            theirs.on_train_begin()
            for epoch, value in enumerate(row):
                theirs.on_epoch_end(epoch, {"val_loss": value})
                if model.stop_training:
                    break
            expected = theirs.stopped_epoch + 1 if model.stop_training else None
            rule = {"patience": patience, "min_delta": 0.05, "start_epoch": start}
            assert stops_after(row.tolist(), **rule) == expected


def factors(schedule: Any, epochs: int = 4) -> list[float]:
    return [rate_factor(schedule, after([1.0] * done), epochs) for done in range(epochs)]


def test_schedules() -> None:
    half = math.sqrt(0.5)
    assert factors(None) == [1, 1, 1, 1]
    assert factors(CosineSchedule(type="cosine")) == pytest.approx(
        [1, (1 + half) / 2, 0.5, (1 - half) / 2]
    )
    assert factors(CosineSchedule(type="cosine", floor=0.2))[2] == pytest.approx(0.6)
    assert factors(ExponentialSchedule(type="exponential", decay=0.5)) == [1, 0.5, 0.25, 0.125]
    assert factors(StepSchedule(type="step", every=2, factor=0.25)) == [1, 1, 0.25, 0.25]


def test_cosine_after_a_warm_up() -> None:
    schedule = CosineSchedule(type="cosine", warmup=2)
    assert factors(schedule, 6) == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]
    )


def test_plateau() -> None:
    rule = PlateauSchedule(type="plateau", patience=2, factor=0.5)
    progress, scales = Progress(), []
    for value in [5, 4, 4, 4, 4, 4, 3, 3]:
        progress.add({"val_loss": value}, LOWEST)
        follow_plateau(progress, value, rule, LOWEST)
        scales.append(rate_factor(rule, progress, 20))
    assert scales == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
