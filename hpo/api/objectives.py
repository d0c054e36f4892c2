"""The metric to judge by, and which way of it is better."""

from __future__ import annotations

import sys
from typing import Any

from hpo.errors import UsageError
from hpo.spec.directions import better_direction
from hpo.spec.models import Direction

_DIRECTIONS: dict[Any, Direction] = {"max": "maximize", "min": "minimize"}


def read_objective(objective: Any, direction: Direction | None) -> dict[str, Any]:
    """The section `objective:` for what a user gave: a metric's name or `keras_tuner.Objective`.

    Raises:
        UsageError: It is neither, or the direction is said twice or not at all.
    """
    metric = objective
    if _is_one_of_kerastuner(objective):
        metric, own = objective.name, _DIRECTIONS.get(objective.direction)
        if None not in (own, direction) and own != direction:
            raise UsageError(f"direction={direction!r} contradicts the objective, which says {own}")
        direction = direction or own
    if not isinstance(metric, str):
        raise UsageError(
            "objective must be the name of one metric, such as 'val_loss', or a "
            f"keras_tuner.Objective; received {_received(objective)}"
        )
    return {"metric": metric, "direction": direction_of(metric, direction)}


def _is_one_of_kerastuner(objective: Any) -> bool:
    # Nobody has an object of a package that is not imported.
    kerastuner = sys.modules.get("keras_tuner")
    return kerastuner is not None and isinstance(objective, kerastuner.Objective)


def _received(objective: object) -> str:
    return "None" if objective is None else type(objective).__name__


def direction_of(metric: str, direction: Direction | None) -> Direction:
    """The direction that was given, else the one that the metric's name tells.

    Raises:
        UsageError: The name does not tell, or tells both.
    """
    found = direction or better_direction(metric)
    if found is None:
        raise UsageError(
            f"the name of the metric {metric!r} does not say whether more or less of it is "
            "better: give direction='maximize' or direction='minimize'"
        )
    return found
