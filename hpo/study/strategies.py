"""Optuna's samplers and pruners by name, with their options checked."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hpo.spec import StudySpec

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

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
# Options that hold Python objects, or that the service sets itself.
_HIDDEN = {
    "seed",
    "constraints_func",
    "gamma",
    "weights",
    "warn_independent_sampling",
    "independent_sampler",
    "crossover",
    "elite_population_selection_strategy",
    "child_generation_strategy",
    "after_trial_strategy",
    "source_trials",
    "mutation",
    "args",
    "kwargs",
}
# group: without it conditional parameters fall silently out of the joint model.
_SAMPLER_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "tpe": {"multivariate": True, "group": True, "constant_liar": True},
}


@dataclass(frozen=True)
class OptionError:
    """One option that does not fit; `path` leads to it in the study file."""

    path: tuple[str | int, ...]
    message: str


def check_strategies(spec: StudySpec) -> list[OptionError]:
    """Everything that is wrong with the options of the sampler and the pruner."""
    sampler = spec.search.sampler
    found = _unknown("sampler", sampler.type, sampler.options, _sampler_class(sampler.type))
    found += _unknown_pruner_options(spec)
    if not found:
        found += _try("sampler", lambda: make_sampler(spec, 0))
        found += _try("pruner", lambda: make_pruner(spec))
        found += _grid_too_small(spec)
    return found


def make_sampler(spec: StudySpec, slot: int) -> BaseSampler:
    """The sampler of one slot: its seed depends on the study's seed and the slot only."""
    name = spec.search.sampler.type
    options = _SAMPLER_DEFAULTS.get(name, {}) | spec.search.sampler.options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed = trial_seed(spec.training.seed, slot)
        sampler: BaseSampler = _sampler_class(name)(**options, seed=seed)
        return sampler


def make_pruner(spec: StudySpec) -> BasePruner:
    """The pruner; Hyperband learns the number of epochs from the study file."""
    name, options = spec.search.pruner.type, dict(spec.search.pruner.options)
    if name == "hyperband":
        options.setdefault("max_resource", _most_epochs(spec))
    if name == "patient":
        options["wrapped_pruner"] = _wrapped(options.get("wrapped_pruner"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner: BasePruner = _pruner_class(name)(**options)
        return pruner


def trial_seed(seed: int, slot: int) -> int:
    """A 32-bit seed for one slot of a study."""
    import numpy as np

    return int(np.random.SeedSequence([seed, slot]).generate_state(1)[0])


def _sampler_class(name: str) -> type[Any]:
    import optuna

    return getattr(optuna.samplers, _SAMPLERS[name])  # type: ignore[no-any-return]


def _pruner_class(name: str) -> type[Any]:
    import optuna

    return getattr(optuna.pruners, _PRUNERS[name])  # type: ignore[no-any-return]


def _wrapped(pruner: Any) -> Any:
    if pruner is None:
        return None
    options = dict(pruner) if isinstance(pruner, dict) else {"type": pruner}
    name = options.pop("type")
    return _pruner_class(name)(**options)


def _unknown(key: str, name: str, options: dict[str, Any], made_by: type[Any]) -> list[OptionError]:
    known = set(inspect.signature(made_by).parameters) - _HIDDEN
    return [
        OptionError(("search", key, option), f"{_unknown_word(option, name, known)}")
        for option in options
        if option not in known
    ]


def _unknown_word(option: str, name: str, known: set[str]) -> str:
    near = get_close_matches(option, known, 1)
    if near:
        return f"unknown option {option!r} of {name}, did you mean {near[0]!r}?"
    return f"unknown option {option!r} of {name}; it takes: {', '.join(sorted(known)) or 'none'}"


def _unknown_pruner_options(spec: StudySpec) -> list[OptionError]:
    pruner = spec.search.pruner
    found = _unknown("pruner", pruner.type, pruner.options, _pruner_class(pruner.type))
    inner = pruner.options.get("wrapped_pruner")
    name = inner.get("type") if isinstance(inner, dict) else inner
    if pruner.type == "patient" and inner is not None and name not in _PRUNERS:
        words = f"expected the name of a pruner ({', '.join(_PRUNERS)}), received {name!r}"
        found.append(OptionError(("search", "pruner", "wrapped_pruner"), words))
    return found


def _try(key: str, make: Callable[[], object]) -> list[OptionError]:
    try:
        make()
    except ImportError as error:
        words = f"needs a package that is not installed: pip install {error.name}"
        return [OptionError(("search", key), words)]
    except (TypeError, ValueError) as error:
        words = str(error).replace(".__init__()", "")
        return [OptionError(("search", key), f"does not accept its options: {words}")]
    return []


def _grid_too_small(spec: StudySpec) -> list[OptionError]:
    if spec.search.sampler.type != "grid":
        return []
    points = 1
    for choices in spec.search.sampler.options["search_space"].values():
        points *= len(choices)
    if points >= spec.search.trials:
        return []
    words = f"the grid has {points} points, fewer than the {spec.search.trials} trials; set trials"
    return [OptionError(("search", "trials"), f"{words} to {points}")]


def _most_epochs(spec: StudySpec) -> int:
    epochs = spec.space.get("epochs", spec.training.epochs)
    if isinstance(epochs, int):
        return epochs
    return int(getattr(epochs, "high", 0) or max(getattr(epochs, "choices", (0,))))
