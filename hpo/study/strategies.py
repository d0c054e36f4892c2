"""Optuna's samplers and pruners by name, checked before the search begins."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hpo.study.options import PRUNER_OPTIONS, SAMPLER_OPTIONS, OptionError, check_options

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from hpo.spec import StudySpec

__all__ = [
    "OptionError",
    "check_strategies",
    "make_pruner",
    "make_sampler",
    "sampler_of",
    "trial_seed",
]

_SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "brute_force": "BruteForceSampler",
    "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "cmaes": "CmaEsSampler",
}
_PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "patient": "PatientPruner",
    "wilcoxon": "WilcoxonPruner",
}
# Optuna lists every point of a grid in memory.
_MOST_GRID_POINTS = 1_000_000

_SAMPLER = ("search", "sampler")
_PRUNER = ("search", "pruner")


def check_strategies(spec: StudySpec) -> list[OptionError]:
    """Everything that is wrong with the options of the sampler and the pruner."""
    sampler, pruner = spec.search.sampler, spec.search.pruner
    found = check_options(_SAMPLER, sampler.type, sampler.options, SAMPLER_OPTIONS[sampler.type])
    found += _check_pruner(_PRUNER, pruner.type, pruner.options)
    if not found:
        found = _grid_size(spec) or _try(_SAMPLER, lambda: make_sampler(spec, 0))
        found += _try(_PRUNER, lambda: make_pruner(spec))
        found += _missing_package(spec)
    return found


def make_sampler(spec: StudySpec, slot: int) -> BaseSampler:
    """The sampler of one slot: what it draws depends on the study's seed and the slot only."""
    sampler = spec.search.sampler
    return sampler_of(sampler.type, sampler.options, spec.training.seed, slot)


def sampler_of(name: str, options: dict[str, Any], study_seed: int, slot: int) -> BaseSampler:
    """The sampler of that name for one slot of a study."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = _sampler_options(name, options, study_seed, slot)
        sampler: BaseSampler = _sampler_class(name)(**options)
        return sampler


def _sampler_options(
    name: str, options: dict[str, Any], study_seed: int, slot: int
) -> dict[str, Any]:
    seed = trial_seed(study_seed, slot)
    if name == "tpe":
        multivariate = options.get("multivariate", True)
        # group: without it conditional parameters fall silently out of the joint model.
        options = {"multivariate": multivariate, "group": multivariate, **options}
    if name == "grid":
        # Slots share one shuffled list of points, and each takes its own of them.
        options, seed = {**options, "slot": slot}, trial_seed(study_seed, 0)
    if name == "qmc":
        import optuna

        # Slots go along one sequence. Trials before it begins are drawn independently.
        independent = optuna.samplers.RandomSampler(seed=seed)
        options = {**options, "slot": slot, "independent_sampler": independent}
        options["warn_independent_sampling"] = False
        seed = trial_seed(study_seed, 0)
    return {**options, "seed": seed}


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner; Hyperband learns the number of epochs from the study file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner: BasePruner = _pruner(spec, spec.search.pruner.type, spec.search.pruner.options)
        return pruner


def _pruner(spec: StudySpec, name: str, options: dict[str, Any]) -> Any:
    if name == "hyperband":
        options = {"max_resource": _most_epochs(spec), **options}
        _check_resources(options)
    if name == "patient":
        wrapped = options.get("wrapped_pruner")
        inner = None if wrapped is None else _pruner(spec, *_name_and_options(wrapped))
        options = {**options, "wrapped_pruner": inner}
    return _pruner_class(name)(**options)


def trial_seed(seed: int, slot: int) -> int:
    """A 32-bit seed for one slot of a study."""
    import numpy as np

    return int(np.random.SeedSequence([seed, slot]).generate_state(1)[0])


def _sampler_class(name: str) -> type[Any]:
    if name == "tpe":
        from hpo.study.tpe import WindowTPESampler

        return WindowTPESampler
    if name in ("grid", "qmc"):
        from hpo.study import sequences

        return sequences.SlotGridSampler if name == "grid" else sequences.SlotQMCSampler
    import optuna

    return getattr(optuna.samplers, _SAMPLERS[name])  # type: ignore[no-any-return]


def _pruner_class(name: str) -> type[Any]:
    import optuna

    from hpo.study import pruners

    # Those that read the study; the others look at their own trial only, or at the best one.
    ours: type[Any] | None = getattr(pruners, f"History{_PRUNERS[name]}", None)
    if ours is not None:
        return ours

    return getattr(optuna.pruners, _PRUNERS[name])  # type: ignore[no-any-return]


def _name_and_options(wrapped: Any) -> tuple[str, dict[str, Any]]:
    options = {"type": wrapped} if isinstance(wrapped, str) else dict(wrapped)
    return options.pop("type"), options


def _check_pruner(
    path: tuple[str | int, ...], name: str, options: Mapping[str, Any]
) -> list[OptionError]:
    found = check_options(path, name, options, PRUNER_OPTIONS[name])
    wrapped = options.get("wrapped_pruner")
    if not found and wrapped is not None:
        found = _check_pruner((*path, "wrapped_pruner"), *_name_and_options(wrapped))
    return found


def _check_resources(options: dict[str, Any]) -> None:
    low, high = options.get("min_resource", 1), options["max_resource"]
    if high != "auto" and low > high:
        raise ValueError(f"min_resource {low} is above max_resource {high}")


def _try(path: tuple[str, ...], make: Callable[[], object]) -> list[OptionError]:
    """What the options are together, Optuna's constructors know best."""
    try:
        make()
    except (TypeError, ValueError) as error:
        words = str(error).replace(".__init__()", "")
        return [OptionError(path, f"does not accept its options: {words}")]
    return []


def _missing_package(spec: StudySpec) -> list[OptionError]:
    # Optuna imports it in the middle of the search.
    if spec.search.sampler.type != "cmaes" or find_spec("cmaes") is not None:
        return []
    words = "needs a package that is not installed: pip install keras-hpo[cmaes]"
    return [OptionError(_SAMPLER, words)]


def _grid_size(spec: StudySpec) -> list[OptionError]:
    grid = spec.search.sampler.options.get("search_space")
    if grid is None:
        return []
    points, trials = math.prod(map(len, grid.values())), spec.search.trials
    if points > _MOST_GRID_POINTS:
        words = f"the grid has {points} points, more than the {_MOST_GRID_POINTS} that fit"
        return [OptionError((*_SAMPLER, "search_space"), words)]
    if points < trials:
        words = f"the grid has {points} points, fewer than the {trials} trials; set trials to"
        return [OptionError(("search", "trials"), f"{words} {points}")]
    return []


def _most_epochs(spec: StudySpec) -> int:
    epochs = spec.space.get("epochs", spec.training.epochs)
    if isinstance(epochs, int):
        return epochs
    return int(getattr(epochs, "high", 0) or max(getattr(epochs, "choices", (0,))))
