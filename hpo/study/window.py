"""Which finished trials the TPE sampler learns from: a suggestion must not cost more with each.

TPE (Bergstra et al. 2011; Watanabe 2023) splits the trials into the best, at most 25 of them, and
the others, and compares the densities of both. The best ones stay exact here however many trials
there are; of the others the most recent ones are kept. Optuna weighs old ones less anyway.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

__all__ = ["BEST", "RECENT", "best_of", "window_of"]

# As many as Optuna's TPESampler ever takes as the best ones.
BEST = 25
# With fewer it would take fewer than these as the best ones: a tenth of what it sees.
RECENT = 250


def window_of(
    trials: Sequence[FrozenTrial], *, maximize: bool, recent: int = RECENT
) -> list[FrozenTrial]:
    """The BEST best and the `recent` most recent ones of finished trials, in their order.

    Args:
        trials: Complete and pruned ones, in the order of their numbers. The order in which they
            ended does not matter.
    """
    if len(trials) <= recent:
        return list(trials)
    chosen = {trial.number for trial in best_of(trials, maximize=maximize)}
    older = [trial for trial in trials[:-recent] if trial.number in chosen]
    return [*older, *trials[-recent:]]


def best_of(trials: Iterable[FrozenTrial], *, maximize: bool) -> list[FrozenTrial]:
    """The BEST best ones, the best one first; of equal ones the first."""
    return heapq.nsmallest(BEST, trials, key=lambda trial: _rank(trial, maximize))


def _rank(trial: FrozenTrial, maximize: bool) -> tuple[float, float, float, int]:
    """TPE's order: complete ones by value, then pruned ones by how far they came and their report.

    Constraints, which only a plain Optuna script can set, are left out of it.
    """
    sign = -1 if maximize else 1
    if trial.state is TrialState.COMPLETE:
        value = trial.value
        return (0, 0, math.inf if value is None else sign * value, trial.number)
    if not trial.intermediate_values:
        return (1, 1, 0, trial.number)
    step, report = max(trial.intermediate_values.items())
    return (1, -step, math.inf if math.isnan(report) else sign * report, trial.number)
