"""Optuna's TPE sampler at a cost that does not grow with the study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.trial import FrozenTrial, TrialState

from hpo.study.storage import StudyStorage
from hpo.study.window import RECENT, window_of

_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class WindowTPESampler(TPESampler):
    """TPE on the window of a study; the same suggestions as Optuna's while all trials fit in it.

    A trial's suggestions rest on one look at the study. Optuna looks again for each step.

    Args:
        recent: Trials in the window besides the best ones.
        options: Of Optuna's sampler.
    """

    def __init__(self, *, recent: int = RECENT, **options: Any) -> None:
        super().__init__(**options)
        self._recent = recent
        if self._group_decomposed_search_space is not None:
            self._group_decomposed_search_space = _Groups(include_pruned=True)
        self._looked: tuple[int, _Window] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._look(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._look(study, trial), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        window = self._look(study, trial)
        return super().sample_independent(window, trial, param_name, param_distribution)

    def _look(self, study: optuna.Study, trial: FrozenTrial) -> Any:
        if self._looked is None or self._looked[0] != trial.number:
            self._looked = trial.number, _Window(study, _trials_of(study, self._recent))
        return self._looked[1]

    def _get_internal_repr(
        self,
        trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
        study: optuna.Study,
    ) -> dict[str, np.ndarray]:
        """As Optuna's, a column at a time instead of a value at a time."""
        running = TrialState.RUNNING
        params = [
            self._get_params(trial, study) if trial.state is running else trial.params
            for trial in trials
        ]
        params = [each for each in params if search_space.keys() <= each.keys()]
        return {
            name: _internal(distribution, [each[name] for each in params])
            for name, distribution in search_space.items()
        }


def _internal(distribution: BaseDistribution, values: list[Any]) -> np.ndarray:
    if not isinstance(distribution, CategoricalDistribution):
        return np.asarray(values, dtype=float)
    # True equals 1, but they are two choices.
    known = {(type(value), value): value for value in values}
    index = {key: distribution.to_internal_repr(value) for key, value in known.items()}
    return np.asarray([index[type(value), value] for value in values])


def _trials_of(study: optuna.Study, recent: int) -> list[FrozenTrial]:
    storage = study._storage
    if isinstance(storage, StudyStorage):
        return storage.sampled_trials(recent)
    trials = study._get_trials(deepcopy=False, states=_STATES)
    running = [trial for trial in trials if trial.state is TrialState.RUNNING]
    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
    maximize = study.direction is optuna.study.StudyDirection.MAXIMIZE
    window = window_of(ended, maximize=maximize, recent=recent)
    return sorted([*window, *running], key=lambda trial: trial.number)


class _Window:
    """A study as TPE sees it: with the trials of the window only."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials
        self._chosen: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002 - TPE changes no trial and asks for no copy
        states: Iterable[TrialState] = _STATES,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        # TPE asks several times for a suggestion, and changes no list of what it gets.
        wanted = tuple(states)
        if wanted not in self._chosen:
            self._chosen[wanted] = [trial for trial in self._trials if trial.state in wanted]
        return self._chosen[wanted]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


class _Groups(_GroupDecomposedSearchSpace):
    """The groups of parameters that occur together, from each combination once.

    A combination that comes again splits no group any further.
    """

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> _SearchSpaceGroup:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        groups, seen = _SearchSpaceGroup(), set()
        last: Any = None
        for trial in study._get_trials(deepcopy=False, states=states, use_cache=use_cache):
            # Mostly the same as of the trial before: to compare is cheaper than to hash.
            if trial.distributions.keys() == last:
                continue
            last = trial.distributions.keys()
            names = frozenset(last)
            if names not in seen:
                seen.add(names)
                groups.add_distributions(trial.distributions)
        return groups
