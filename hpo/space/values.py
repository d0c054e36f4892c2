"""The hyperparameter values of one trial, each asked for once, when it is first needed.

The builder declares a parameter by asking for it. The study file's `space:` may fix it, narrow its
range, or add one that the builder only reads with `hp.get`. What neither fixes is suggested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import UsageError
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
    SpaceEntry,
)

Suggest = Callable[[str, Parameter], Scalar]

_NUMBERED = re.compile(r"(.+)_(\d+)")


class SpaceError(UsageError):
    """The study file's space does not fit what the builder declares; `entry` is its key there."""

    def __init__(self, entry: str, message: str) -> None:
        self.entry = entry
        super().__init__(message)


class Values:
    """Values by name; `suggest` is asked for those that nothing else decides.

    Args:
        space: The study file's entries.
        defaults: Values of the trainer's own parameters (batch size, optimizer, ...) that hold
            when the space does not name them.
        suggest: Returns a value inside the parameter's range.
    """

    def __init__(
        self, space: Mapping[str, SpaceEntry], defaults: Mapping[str, Scalar], suggest: Suggest
    ) -> None:
        self.taken: dict[str, Any] = {}
        self.asked: set[str] = set()
        self.declared: dict[str, Parameter] = {}
        self._space = space
        self._defaults = defaults
        self._suggest = suggest

    def take(self, name: str, declared: Parameter | None, default: Any, alias: str = "") -> Any:
        """The value of a parameter that the builder declares, or that the study file adds.

        Args:
            name: As the builder asks for it.
            declared: The builder's range; None when it only reads the name.
            default: The value while the parameter is inactive.
            alias: The name in the study, when `name` alone would not be unique there.

        Raises:
            SpaceError: The study file's entry does not fit the declaration.
        """
        key = alias or name
        if declared is not None:
            self.declared[key] = declared
        if key not in self.taken:
            self.taken[key] = self._decide(key, declared, default)
        return self.taken[key]

    def training(self, name: str) -> Any:
        """The value of one of the trainer's own parameters."""
        return self.take(name, None, self._defaults[name])

    def adds(self, name: str) -> bool:
        """Whether the study file has an entry for the name."""
        return self._entry_for(name) is not None

    def _decide(self, name: str, declared: Parameter | None, default: Any) -> Any:
        found = self._entry_for(name)
        if found is None:
            return default if declared is None else self._suggest(name, declared)
        key, entry = found
        self.asked.add(key)
        if not isinstance(entry, Parameter):
            _check_fits(key, entry, declared)
            return entry
        if not self._is_active(key, entry, name):
            return default
        return self._suggest(name, _narrowed(key, entry, declared))

    def _entry_for(self, name: str) -> tuple[str, SpaceEntry] | None:
        entry = self._space.get(name)
        if entry is not None and not getattr(entry, "repeat", None):
            return name, entry
        match = _NUMBERED.fullmatch(name)
        if match is not None:
            base = self._space.get(match[1])
            if isinstance(base, Parameter) and base.repeat:
                return match[1], base
        return None

    def _is_active(self, key: str, entry: Parameter, name: str) -> bool:
        if entry.repeat:
            match = _NUMBERED.fullmatch(name)
            assert match is not None
            if int(match[2]) >= self._parent(key, entry.repeat):
                return False
        for parent, wanted in (entry.when or {}).items():
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if self._parent(key, parent) not in allowed:
                return False
        return True

    def _parent(self, key: str, parent: str) -> Any:
        if parent in self.taken:
            return self.taken[parent]
        if parent in self._space or parent in self._defaults:
            return self.take(parent, None, self._defaults.get(parent))
        raise SpaceError(
            key,
            f"it depends on {parent!r}, which the builder has not asked for before; "
            f"known by then: {', '.join(self.taken) or 'nothing'}",
        )


def _narrowed(key: str, entry: Parameter, declared: Parameter | None) -> Parameter:
    """The study file's entry, which must lie inside the builder's range."""
    if declared is None:
        return entry
    if isinstance(entry, CategoricalParameter):
        for choice in entry.choices:
            _check_fits(key, choice, declared)
        return entry
    if isinstance(entry, BoolParameter) and _is_boolean(declared):
        return entry
    if isinstance(entry, FloatParameter | IntParameter) and isinstance(declared, type(entry)):
        _check_fits(key, entry.low, declared)
        _check_fits(key, entry.high, declared)
        return entry
    raise SpaceError(key, f"expected {in_words(declared)} as the builder, received {entry.type}")


def _is_boolean(declared: Parameter) -> bool:
    if isinstance(declared, CategoricalParameter):
        return set(declared.choices) == {True, False}
    return isinstance(declared, BoolParameter)


def _check_fits(key: str, value: Any, declared: Parameter | None) -> None:
    if declared is None or _fits(value, declared):
        return
    raise SpaceError(key, f"expected {in_words(declared)} as the builder, received {value!r}")


def _fits(value: Any, declared: Parameter) -> bool:
    if isinstance(declared, BoolParameter):
        return isinstance(value, bool)
    if isinstance(declared, CategoricalParameter):
        return value in declared.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(declared, IntParameter) and not isinstance(value, int):
        return False
    return declared.low <= value <= declared.high


def in_words(parameter: Parameter) -> str:
    """A parameter's range as a person would say it."""
    if isinstance(parameter, BoolParameter):
        return "true or false"
    if isinstance(parameter, CategoricalParameter):
        return f"one of {', '.join(map(repr, parameter.choices))}"
    kind = "a whole number" if isinstance(parameter, IntParameter) else "a number"
    return f"{kind} from {parameter.low:g} to {parameter.high:g}"
