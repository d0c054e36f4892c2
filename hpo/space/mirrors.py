"""Reversed logarithmic scales, which Optuna does not have.

A value x of such a parameter is stored as its mirror image low + high - x, which lies on a plain
logarithmic scale, under a name that says so.
"""

from __future__ import annotations

from typing import TypeVar

from hpo.spec.models import FloatParameter, IntParameter, Parameter

Number = TypeVar("Number", int, float)

_SUFFIX = "[mirrored]"


def is_mirrored(parameter: Parameter) -> bool:
    """Whether the study stores the mirror image of the parameter's value."""
    return isinstance(parameter, FloatParameter | IntParameter) and parameter.reverse


def stored_name(name: str, parameter: Parameter) -> str:
    """The parameter's name in the study."""
    return name + _SUFFIX if is_mirrored(parameter) else name


def mirrored(value: Number, low: Number, high: Number) -> Number:
    """The value on the other side of the range's middle; twice, it is the value again."""
    return min(max(low + high - value, low), high)


def own_name(stored: str) -> str | None:
    """The name of the parameter whose mirror image is stored under this one, if it is any."""
    return stored.removesuffix(_SUFFIX) if stored.endswith(_SUFFIX) else None
