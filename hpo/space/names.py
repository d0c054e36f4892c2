"""From the names in a study back to those that the builder asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hpo.spec.models import Parameter, SpaceEntry

# As `hpo.space.hyperparameters.qualified` writes it.
_QUALIFIED = re.compile(r"(.+?)\[([^\[\]=]+=.*)\]", re.DOTALL)


def builder_values(params: Mapping[str, Any], space: Mapping[str, SpaceEntry]) -> dict[str, Any]:
    """What the builder of a trial has found in `hp.values`: sampled, or fixed by the study file.

    In one trial a name has one value: its parameters under other conditions were not active.
    """
    values = {_split(name)[0]: value for name, value in params.items()}
    fixed = {name: entry for name, entry in space.items() if not isinstance(entry, Parameter)}
    # A condition may be on what is fixed itself, further down in the file.
    for _ in range(len(fixed)):
        for name, entry in fixed.items():
            plain, conditions = _split(name)
            if _hold(conditions, values):
                values.setdefault(plain, entry)
    return values


def _split(name: str) -> tuple[str, str]:
    """A name in the study as the builder's and the conditions that stand behind it, if any do."""
    match = _QUALIFIED.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def _hold(conditions: str, values: Mapping[str, Any]) -> bool:
    pairs = [each.partition("=") for each in conditions.split(",") if each]
    return all(str(values.get(name)) in allowed.split("|") for name, _, allowed in pairs)
