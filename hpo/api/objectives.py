"""Which way of a metric is better, as far as its name says so."""

from __future__ import annotations

import re

from hpo.errors import UsageError
from hpo.spec.models import Direction

_LESS = re.compile(
    r"loss|error|hinge|crossentropy|divergence|poisson|false_|\b(r?mse|mae|mape|msle|logcosh)\b"
)
_MORE = re.compile(
    r"accuracy|precision|recall|sensitivity|specificity|similarity|true_|\b(acc|auc|iou|r2)\b"
    r"|f1|fbeta|r2_?score|mean_?io_?u|_io_?u"
)


def direction_of(metric: str, direction: Direction | None) -> Direction:
    """The direction that was given, else the one that the metric's name tells.

    Raises:
        UsageError: The name does not tell, or tells both.
    """
    if direction is not None:
        return direction
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", metric.removeprefix("val_")).lower()
    less, more = _LESS.search(name), _MORE.search(name)
    if bool(less) == bool(more):
        raise UsageError(
            f"the name of the metric {metric!r} does not say whether more or less of it is "
            "better: give direction='maximize' or direction='minimize'"
        )
    return "minimize" if less else "maximize"
