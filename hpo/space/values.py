"""The hyperparameter values of one trial, each asked for once, when it is first needed.

The builder declares a parameter by asking for it. The study file's `space:` may fix it, narrow its
range, or add one that the builder only reads with `hp.get`. What neither fixes is suggested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hpo.errors import BuilderError, UsageError
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

# What Optuna's column for names holds.
_LONGEST_NAME = 512
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

    Attributes:
        fixed: By their keys, entries of the study file that the builder leaves no choice for, with
            the values that it has fixed.
    """

    def __init__(
        self, space: Mapping[str, SpaceEntry], defaults: Mapping[str, Scalar], suggest: Suggest
    ) -> None:
        self.taken: dict[str, Any] = {}
        self.asked: set[str] = set()
        self.declared: dict[str, Parameter] = {}
        self.fixed: dict[str, Any] = {}
        self._space = space
        self._defaults = defaults
        self._suggest = suggest

    def take(self, name: str, declared: Parameter | None, default: Any) -> Any:
        """The value of a parameter that the builder declares, or that the study file adds.

        Args:
            name: As the builder asks for it.
            declared: The builder's range; None when it only reads the name.
            default: The value while the parameter is inactive.

        Raises:
            SpaceError: The study file's entry does not fit the declaration.
            BuilderError: Not every database can hold the name.
        """
        found = self._entry_for(name)
        if declared is not None and name not in self.declared:
            self.declared[name] = declared
            # Checked here, because a parent of others may have its value before it is declared.
            if found is not None:
                _check_fits(*found, declared)
        if name not in self.taken:
            self.taken[name] = self._decide(name, declared, default)
        return self.taken[name]

    def fix(self, name: str, value: Any) -> None:
        """Takes note that the builder has a value of its own for the name."""
        found = self._entry_for(name)
        if found is not None:
            self.fixed[found[0]] = value

    def training(self, name: str) -> Any:
        """The value of one of the trainer's own parameters.

        One that the study file leaves to its default may still be declared: by a HyperModel's own
        `fit`, which comes later.
        """
        if name not in self.taken and not self.adds(name):
            return self._defaults[name]
        return self.take(name, None, self._defaults[name])

    def adds(self, name: str) -> bool:
        """Whether the study file has an entry for the name."""
        return self._entry_for(name) is not None

    def _decide(self, name: str, declared: Parameter | None, default: Any) -> Any:
        found = self._entry_for(name)
        if found is None:
            return default if declared is None else self._suggested(name, declared)
        entry_name, entry = found
        self.asked.add(entry_name)
        if not isinstance(entry, Parameter):
            return _as_declared(entry, declared)
        if not self._is_active(entry_name, entry, name):
            return default
        return self._suggested(name, entry)

    def _suggested(self, name: str, parameter: Parameter) -> Scalar:
        _check_name(name)
        return self._suggest(name, parameter)

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


def _check_name(name: str) -> None:
    """Raises BuilderError for a name that some database cuts, refuses or takes for another."""
    if len(name) > _LONGEST_NAME:
        raise BuilderError(
            f"the builder asks for a parameter with a name of {len(name)} characters, expected at "
            f"most {_LONGEST_NAME}: {name[:40]!r}..."
        )
    # MySQL does not see blanks at the end.
    if not name or name != name.strip() or not name.isprintable():
        raise BuilderError(
            f"the builder asks for a parameter named {name!r}; expected a name of visible "
            "characters without blanks around it"
        )


def _check_fits(key: str, entry: SpaceEntry, declared: Parameter) -> None:
    """Raises SpaceError unless the study file's entry lies inside the builder's range."""
    if not isinstance(entry, Parameter):
        outside: list[Any] = [entry]
    elif isinstance(entry, CategoricalParameter):
        outside = list(entry.choices)
    elif isinstance(entry, BoolParameter):
        outside = [False, True]
    elif isinstance(declared, type(entry)):
        outside = [entry.low, entry.high]
    else:
        raise SpaceError(
            key, f"expected {in_words(declared)} as the builder, received {entry.type}"
        )
    for value in outside:
        if not fits(value, declared):
            words = f"expected {in_words(declared)} as the builder, received {value!r}"
            raise SpaceError(key, words)


def fits(value: Any, declared: Parameter) -> bool:
    """Whether the value has the parameter's kind and lies in its range, steps aside."""
    if isinstance(declared, BoolParameter):
        return isinstance(value, bool)
    if isinstance(declared, CategoricalParameter):
        return _same(value, declared) is not None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(declared, IntParameter) and not isinstance(value, int):
        return False
    return declared.low <= value <= declared.high


def _same(value: Any, declared: CategoricalParameter) -> int | None:
    """Index of the choice that is equal. KerasTuner turns choices of True and False into 1 and 0,
    so only then a truth value is the same as a number."""
    numbered = set(declared.choices) == {True, False}
    for index, choice in enumerate(declared.choices):
        if choice == value and (numbered or isinstance(choice, bool) == isinstance(value, bool)):
            return index
    return None


def _as_declared(value: Any, declared: Parameter | None) -> Any:
    """A fixed value of the kind that the builder expects: 0 is 0.0 where it declares a float."""
    if isinstance(declared, FloatParameter):
        return float(value)
    if isinstance(declared, CategoricalParameter):
        index = _same(value, declared)
        return value if index is None else declared.choices[index]
    return value


def in_words(parameter: Parameter) -> str:
    """A parameter's range as a person would say it."""
    if isinstance(parameter, BoolParameter):
        return "true or false"
    if isinstance(parameter, CategoricalParameter):
        return f"one of {', '.join(map(repr, parameter.choices))}"
    if isinstance(parameter, IntParameter):
        return f"a whole number from {parameter.low} to {parameter.high}"
    return f"a number from {parameter.low:g} to {parameter.high:g}"
