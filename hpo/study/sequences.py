"""Optuna's samplers that go along one list of points, with each slot at a place of its own.

Optuna's find their place in what the study has so far, so workers that begin at the same time may
take the same one, and a trial that is taken over another one than before.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import GridSampler, QMCSampler
from optuna.trial import FrozenTrial

__all__ = ["SlotGridSampler", "SlotQMCSampler"]


class SlotGridSampler(GridSampler):
    """Each slot has the point of its number in the shuffled grid.

    Args:
        slot: Below the number of points.
        options: Of Optuna's sampler.
    """

    def __init__(self, slot: int, **options: Any) -> None:
        super().__init__(**options)
        self._slot = slot

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if "grid_id" not in trial.system_attrs:
            set_attr = study._storage.set_trial_system_attr
            set_attr(trial._trial_id, "search_space", self._search_space)
            set_attr(trial._trial_id, "grid_id", self._slot)


class SlotQMCSampler(QMCSampler):
    """Slots from 1 on have the points of the sequence; nobody knows its space before the first.

    Args:
        options: Of Optuna's sampler.
    """

    def __init__(self, slot: int, **options: Any) -> None:
        super().__init__(**options)
        self._slot = slot

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(study, trial) if self._slot else {}

    def _find_sample_id(
        self,
        study: optuna.Study,  # noqa: ARG002 - Optuna counts there
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> int:
        return self._slot - 1
