"""Optuna's pruners at a cost that does not grow with the study; each decides as Optuna's does.

Optuna's pruners read every trial at each report. These ask a study's `History` for the one step or
rung that they compare with. On a study of another storage they are Optuna's own.
`tests/study/test_pruners.py` holds them against Optuna's on random histories.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import optuna
from optuna.pruners import (
    HyperbandPruner,
    MedianPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.pruners._percentile import (
    _get_best_intermediate_result_over_steps,
    _is_first_in_interval_step,
)
from optuna.pruners._successive_halving import _get_current_rung
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from hpo.study.history import History, rung_key
from hpo.study.storage import StudyStorage

__all__ = [
    "HistoryHyperbandPruner",
    "HistoryMedianPruner",
    "HistoryPercentilePruner",
    "HistorySuccessiveHalvingPruner",
    "near_percentile",
]


class HistoryPercentilePruner(PercentilePruner):
    """Prunes what is worse at a step than a percentile of the complete trials was there."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history = _history_of(study)
        if history is None:
            return super().prune(study, trial)
        step = trial.last_step
        # First what needs no look at the study.
        if step is None or step < self._n_warmup_steps or not self._is_due(step, trial):
            return False
        complete, reports = history.complete_reports(step)
        if complete == 0 or complete < self._n_startup_trials:
            return False
        best = _get_best_intermediate_result_over_steps(trial, study.direction)
        if math.isnan(best):
            return True
        if len(reports) < self._n_min_trials:
            return False
        # Against NaN, which it is when every report is, neither comparison is true.
        if study.direction == StudyDirection.MAXIMIZE:
            return bool(best < near_percentile(reports, 100 - self._percentile, best))
        return bool(best > near_percentile(reports, self._percentile, best))

    def _is_due(self, step: int, trial: FrozenTrial) -> bool:
        steps = trial.intermediate_values.keys()
        return _is_first_in_interval_step(step, steps, self._n_warmup_steps, self._interval_steps)


def near_percentile(reports: np.ndarray, percentile: float, value: float) -> float:
    """The percentile of sorted reports, or a number on the same side of `value` as it.

    NumPy would part all reports again at each look. It is asked when the value lies among the
    reports around the percentile.
    """
    known = reports[: np.searchsorted(reports, math.nan)]
    if len(known):
        place = int((len(known) - 1) * percentile / 100)
        # One further on each side than the percentile lies between: no rounding reaches it.
        low, high = float(known[max(place - 1, 0)]), float(known[min(place + 2, len(known) - 1)])
        # Between infinities NumPy finds NaN.
        if math.isfinite(high - low) and not low <= value <= high:
            return low if value < low else high
    return float(np.nanpercentile(reports, percentile))


class HistoryMedianPruner(HistoryPercentilePruner, MedianPruner):
    """Prunes what is worse at a step than half of the complete trials were there."""


class HistorySuccessiveHalvingPruner(SuccessiveHalvingPruner):
    """Asynchronous successive halving (Li et al. 2018)."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history = _history_of(study)
        step = trial.last_step
        if history is None or step is None:
            return super().prune(study, trial)
        value = trial.intermediate_values[step]
        for rung in itertools.count(_get_current_rung(trial)):
            if self._min_resource is None:
                self._min_resource = _estimated_resource(history)
            if self._min_resource is None or step < self._promotion_step(rung):
                return False
            if math.isnan(value):
                return True
            rivals = self._rivals(history, rung, trial)
            study._storage.set_trial_system_attr(trial._trial_id, rung_key(rung), value)
            if not self._promotes(value, rivals, study.direction):
                return True
        raise AssertionError("rungs have no end")

    def _promotion_step(self, rung: int) -> int:
        factor: int = self._reduction_factor ** (self._min_early_stopping_rate + rung)
        return self._min_resource * factor  # type: ignore[operator]

    def _rivals(self, history: History, rung: int, trial: FrozenTrial) -> np.ndarray:
        """The values at a rung that the trial is compared with, its own excepted."""
        return history.marks(rung, trial._trial_id).values

    def _promotes(self, value: float, rivals: np.ndarray, direction: StudyDirection) -> bool:
        """Whether the value is among the best of the rung, one in `reduction_factor`."""
        competing = len(rivals) + 1
        if competing <= self._bootstrap_count:
            return False
        # While there are fewer than that, the best one goes on.
        promoted = max(competing // self._reduction_factor, 1)
        maximize = direction == StudyDirection.MAXIMIZE
        better = np.count_nonzero(rivals > value if maximize else rivals < value)
        return bool(better < promoted)


class HistoryHyperbandPruner(HyperbandPruner):
    """Successive halving in brackets (Li et al. 2018); a trial's bracket follows its number."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        history = _history_of(study)
        if history is None:
            return super().prune(study, trial)
        if not self._pruners:
            if self._max_resource == "auto":
                last = history.last_complete_step()
                if last is None:
                    return False
                self._max_resource = last + 1
            self._try_initialization(study)
        bracket = self._get_bracket_id(study, trial)
        return self._bracket_pruner(bracket).prune(study, trial)

    def _bracket_pruner(self, bracket: int) -> SuccessiveHalvingPruner:
        end = sum(self._trial_allocation_budgets[: bracket + 1])
        return _BracketPruner(
            range(end - self._trial_allocation_budgets[bracket], end),
            self._total_trial_allocation_budget,
            min_resource=self._min_resource,
            reduction_factor=self._reduction_factor,
            min_early_stopping_rate=bracket,
            bootstrap_count=self._bootstrap_count,
        )


class _BracketPruner(HistorySuccessiveHalvingPruner):
    """Successive halving among the trials of one bracket.

    Args:
        lots: Of `budget` many, those that fall to the bracket.
        options: Of Optuna's pruner.
    """

    def __init__(self, lots: range, budget: int, **options: int) -> None:
        super().__init__(**options)
        self._lots = lots
        self._budget = budget

    def _rivals(self, history: History, rung: int, trial: FrozenTrial) -> np.ndarray:
        marks = history.marks(rung, trial._trial_id)
        lots = history.checksums(marks.numbers) % self._budget
        return marks.values[(lots >= self._lots.start) & (lots < self._lots.stop)]


def _estimated_resource(history: History) -> int | None:
    last = history.last_complete_step()
    return None if last is None else max(last // 100, 1)


def _history_of(study: optuna.Study) -> History | None:
    storage = study._storage
    return storage.history if isinstance(storage, StudyStorage) else None
