"""Which way of a metric is better, as far as its name says so."""

from __future__ import annotations

import re

from hpo.spec.models import Direction

_LESS = re.compile(
    r"loss|error|hinge|crossentropy|divergence|poisson|false_|\b(r?mse|mae|mape|msle|logcosh)\b"
)
_MORE = re.compile(
    r"accuracy|precision|recall|sensitivity|specificity|similarity|true_|\b(acc|auc|iou|r2)\b"
    r"|f1|fbeta|r2_?score|mean_?io_?u|_io_?u"
)


def better_direction(metric: str) -> Direction | None:
    """The direction that the name of a metric tells; None when it tells none, or both."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", metric.removeprefix("val_")).lower()
    less, more = _LESS.search(name), _MORE.search(name)
    if bool(less) == bool(more):
        return None
    return "minimize" if less else "maximize"
