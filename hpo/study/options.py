"""The options of Optuna's samplers and pruners that may stand in a study file.

Optuna takes most options unseen and crashes in the middle of the search, so they are checked here
first. `tests/study/test_options.py` holds the tables against Optuna's signatures. Left out are
options that hold Python objects, that Optuna has deprecated, or that the service sets itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol


@dataclass(frozen=True)
class OptionError:
    """One option that does not fit; `path` leads to it in the study file."""

    path: tuple[str | int, ...]
    message: str


class Kind(Protocol):
    """What an option takes."""

    def accepts(self, value: Any) -> bool: ...

    def in_words(self) -> str: ...


@dataclass(frozen=True)
class Whole:
    """A whole number, or one of a few words."""

    low: int = 0
    words: tuple[str, ...] = ()

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self.words
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.low

    def in_words(self) -> str:
        return " or ".join([f"a whole number from {self.low}", *map(repr, self.words)])


@dataclass(frozen=True)
class Number:
    """A finite number."""

    low: float = -math.inf
    high: float = math.inf

    def accepts(self, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and self.low <= value <= self.high

    def in_words(self) -> str:
        low = "" if self.low == -math.inf else f" from {self.low:g}"
        return f"a number{low}" + ("" if self.high == math.inf else f" to {self.high:g}")


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)

    def in_words(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Word:
    """One of a few words."""

    words: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.words

    def in_words(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Grid:
    """The values to try of each parameter."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(map(_is_list, value.values()))

    def in_words(self) -> str:
        return "a list of finite values for each parameter, such as {units: [16, 32]}"


def _is_list(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(map(_is_scalar, values))


def _is_scalar(value: Any) -> bool:
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


@dataclass(frozen=True)
class Wrapped:
    """A pruner inside another one: a name, or a mapping with type and options."""

    def accepts(self, value: Any) -> bool:
        name = value.get("type") if isinstance(value, Mapping) else value
        return isinstance(name, str) and name in PRUNER_OPTIONS

    def in_words(self) -> str:
        return f"the name of a pruner ({', '.join(PRUNER_OPTIONS)}), or its type and options"


Options = Mapping[str, Kind]

_FRACTION = Number(0, 1)
_GENETIC: Options = {
    "population_size": Whole(2),
    "mutation_prob": _FRACTION,
    "crossover_prob": _FRACTION,
    "swapping_prob": _FRACTION,
}
SAMPLER_OPTIONS: Mapping[str, Options] = {
    "tpe": {
        "n_startup_trials": Whole(),
        "n_ei_candidates": Whole(1),
        "multivariate": Flag(),
        "group": Flag(),
        "constant_liar": Flag(),
    },
    "random": {},
    "grid": {"search_space": Grid()},
    "brute_force": {"avoid_premature_stop": Flag()},
    "qmc": {"qmc_type": Word(("sobol", "halton")), "scramble": Flag()},
    "nsgaii": _GENETIC,
    "nsgaiii": {**_GENETIC, "dividing_parameter": Whole(1)},
    "cmaes": {
        "sigma0": Number(1e-12),
        "n_startup_trials": Whole(),
        "consider_pruned_trials": Flag(),
        "popsize": Whole(2),
        "use_separable_cma": Flag(),
        "with_margin": Flag(),
        "lr_adapt": Flag(),
    },
}
_MEDIAN: Options = {
    "n_startup_trials": Whole(),
    "n_warmup_steps": Whole(),
    "interval_steps": Whole(1),
    "n_min_trials": Whole(1),
}
PRUNER_OPTIONS: Mapping[str, Options] = {
    "none": {},
    "median": _MEDIAN,
    "percentile": {"percentile": Number(0, 100), **_MEDIAN},
    "successive_halving": {
        "min_resource": Whole(1, ("auto",)),
        "reduction_factor": Whole(2),
        "min_early_stopping_rate": Whole(),
        "bootstrap_count": Whole(),
    },
    "hyperband": {
        "min_resource": Whole(1),
        "max_resource": Whole(1, ("auto",)),
        "reduction_factor": Whole(2),
        "bootstrap_count": Whole(),
    },
    "threshold": {
        "lower": Number(),
        "upper": Number(),
        "n_warmup_steps": Whole(),
        "interval_steps": Whole(1),
    },
    "patient": {"wrapped_pruner": Wrapped(), "patience": Whole(), "min_delta": Number(0)},
    "wilcoxon": {"p_threshold": _FRACTION, "n_startup_steps": Whole()},
}


# What Optuna has no default for; of `threshold` it is one of two.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "grid": ("search_space",),
    "percentile": ("percentile",),
    "patient": ("patience",),
}


def check_options(
    path: tuple[str | int, ...], name: str, given: Mapping[str, Any], known: Options
) -> list[OptionError]:
    """Options that are unknown, with the nearest known one, that lack, or whose value is wrong."""
    found = []
    for option, value in given.items():
        kind = known.get(option)
        if kind is None:
            found.append(OptionError((*path, option), _unknown(option, name, known)))
        elif not kind.accepts(value):
            words = f"expected {kind.in_words()}, received {value!r}"
            found.append(OptionError((*path, option), words))
    for option in REQUIRED.get(name, ()):
        if option not in given:
            example = f"{{type: {name}, {option}: ...}}"
            words = f"{name} needs {option}, {known[option].in_words()}: write {example}"
            found.append(OptionError(path, words))
    return found


def _unknown(option: str, name: str, known: Options) -> str:
    near = get_close_matches(option, known, 1)
    if near:
        return f"unknown option {option!r} of {name}, did you mean {near[0]!r}?"
    return f"unknown option {option!r} of {name}; it takes: {', '.join(sorted(known)) or 'none'}"
