"""A trial's learning curve as a picture and as a table, for the dashboard."""

from __future__ import annotations

import csv
import io
import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpo.spec.models import Objective
from hpo.training.channel import Attachment
from hpo.training.progress import Progress


def draw_curve(progress: Progress, objective: Objective, title: str) -> tuple[Attachment, ...]:
    """`learning-curve.png` and `history.csv`; none without an epoch."""
    if not progress.history:
        return ()
    picture = io.BytesIO()
    _draw(progress, objective, title).savefig(picture, format="png")
    return (
        Attachment("learning-curve.png", picture.getvalue()),
        Attachment("history.csv", _table(progress).encode()),
    )


def _table(progress: Progress) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["epoch", *progress.history[0]])
    for epoch, logs in enumerate(progress.history, start=1):
        writer.writerow([epoch, *(logs.get(name, "") for name in progress.history[0])])
    return text.getvalue()


def _draw(progress: Progress, objective: Objective, title: str) -> Figure:
    figure = Figure(figsize=(8, 3.2), dpi=100)
    FigureCanvasAgg(figure)
    # Every trial waits for its picture: a layout that is reckoned would take as long again.
    margins = {"left": 0.09, "right": 0.98, "bottom": 0.16, "top": 0.88, "wspace": 0.25}
    left, right = figure.subplots(1, 2, gridspec_kw=margins)
    metric = objective.metric.removeprefix("val_")
    other = metric if metric != "loss" else _first_metric(progress)
    for axes, name in ((left, "loss"), (right, other)):
        _curve(axes, progress, name)
    if metric != "loss":
        right.axvline(progress.best_epoch, color="0.6", linestyle=":", label="best epoch")
    right.legend()
    figure.suptitle(title, fontsize=10)
    return figure


def _first_metric(progress: Progress) -> str:
    names = [name for name in progress.history[0] if not name.startswith("val_")]
    return next((name for name in names if name != "loss"), "loss")


def _curve(axes: object, progress: Progress, name: str) -> None:
    epochs = range(1, progress.epoch + 1)
    for key, words in ((name, "train"), (f"val_{name}", "validation")):
        if key in progress.history[0]:
            # A HyperModel's own `fit` may change the metrics on the way.
            values = [logs.get(key, math.nan) for logs in progress.history]
            axes.plot(epochs, values, marker=".", label=words)  # type: ignore[attr-defined]
    axes.set_xlabel("epoch")  # type: ignore[attr-defined]
    axes.set_ylabel(name)  # type: ignore[attr-defined]
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[attr-defined]
