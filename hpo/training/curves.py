"""A trial's learning curve as a picture and as a table, for the dashboard."""

from __future__ import annotations

import csv
import io
import math
import threading
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpo.spec.models import Objective
from hpo.training.channel import Attachment
from hpo.training.progress import Progress

_EXPLAINED = (("● train", "C0"), ("● validation", "C1"), ("┊ best epoch", "0.4"))
# The figure of the trial before, for each thread that draws.
_kept = threading.local()


def draw_curve(progress: Progress, objective: Objective, title: str) -> tuple[Attachment, ...]:
    """`learning-curve.png` and `history.csv`; none without an epoch."""
    if not progress.history:
        return ()
    picture = io.BytesIO()
    _draw(progress, objective, title).savefig(
        # Every trial waits for its picture, and a larger file hurts nobody.
        picture,
        format="png",
        pil_kwargs={"compress_level": 1},
    )
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
    curves = _curves_for(progress, objective)
    epochs = range(1, progress.epoch + 1)
    for name, line in curves.lines:
        # A HyperModel's own `fit` may change the metrics on the way.
        line.set_data(epochs, [logs.get(name, math.nan) for logs in progress.history])
    if curves.best is not None:
        curves.best.set_xdata([progress.best_epoch, progress.best_epoch])
    for axes in curves.figure.axes:
        axes.relim()
        axes.autoscale()
    curves.title.set_text(title)
    return curves.figure


@dataclass(frozen=True)
class _Curves:
    """A figure whose lines take the next trial's data: its axes and ticks are half of the work."""

    figure: Figure
    names: tuple[str, ...]
    lines: list[tuple[str, Any]]
    best: Any
    title: Any


def _curves_for(progress: Progress, objective: Objective) -> _Curves:
    names = (objective.metric, *progress.history[0])
    kept: _Curves | None = getattr(_kept, "curves", None)
    if kept is None or kept.names != names:
        kept = _kept.curves = _new_curves(progress, objective, names)
    return kept


def _new_curves(progress: Progress, objective: Objective, names: tuple[str, ...]) -> _Curves:
    figure = Figure(figsize=(8, 3.2), dpi=100)
    FigureCanvasAgg(figure)
    # A layout that is reckoned would take as long again.
    margins = {"left": 0.09, "right": 0.98, "bottom": 0.16, "top": 0.82, "wspace": 0.25}
    left, right = figure.subplots(1, 2, gridspec_kw=margins)
    metric = objective.metric.removeprefix("val_")
    other = metric if metric != "loss" else _first_metric(progress)
    lines = _lines(left, progress, "loss") + _lines(right, progress, other)
    best = right.axvline(1, color="0.6", linestyle=":") if metric != "loss" else None
    # A legend would take a fifth of each drawing, and hide something.
    explained = _EXPLAINED if best is not None else _EXPLAINED[:2]
    for x, (words, colour) in zip((0.64, 0.73, 0.865), explained, strict=False):
        figure.text(x, 0.93, words, color=colour, fontsize=10)
    return _Curves(figure, names, lines, best, figure.text(0.09, 0.93, "", fontsize=10))


def _first_metric(progress: Progress) -> str:
    names = [name for name in progress.history[0] if not name.startswith("val_")]
    return next((name for name in names if name != "loss"), "loss")


def _lines(axes: Any, progress: Progress, name: str) -> list[tuple[str, Any]]:
    lines = []
    for key, (_, colour) in zip((name, f"val_{name}"), _EXPLAINED, strict=False):
        if key in progress.history[0]:
            (line,) = axes.plot([], [], marker=".", color=colour)
            lines.append((key, line))
    axes.set_xlabel("epoch")
    axes.set_title(name, fontsize=10, y=1.0)
    # Fixed places, also of no words: to look for the ends of the numbers takes a sixth of it all.
    axes.xaxis.set_label_coords(0.5, -0.13)
    axes.yaxis.set_label_coords(-0.13, 0.5)
    # Each number takes half a millisecond.
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.get_major_formatter().set_powerlimits((-3, 4))
    return lines
