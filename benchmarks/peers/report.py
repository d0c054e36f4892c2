"""From a contestant's events to one row of figures, and from rows to a table."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


@dataclass(frozen=True)
class Clock:
    """When the command of a contestant was given and when its process had ended, Unix time."""

    started: float
    ended: float


def figures(events: Path, clock: Clock, target: float) -> Row:
    """The figures of one run. Seconds run from the command; a target out of reach is None.

    Raises:
        ValueError: No trial has ended an epoch.
    """
    lines = sorted(_lines(events), key=lambda line: float(line["time"]))
    epochs = [line for line in lines if line["event"] == "epoch"]
    if not epochs:
        raise ValueError("no trial has ended an epoch")
    trials = {line["trial"] for line in lines}
    begin, end = lines[0]["time"], lines[-1]["time"]
    wall = end - clock.started
    first = next((n for n, line in enumerate(epochs) if line["value"] >= target), None)
    return {
        "trials": len(trials),
        "epochs_trained": len(epochs),
        "wall_seconds": round(wall, 2),
        "startup_seconds": round(begin - clock.started, 2),
        "seconds_per_trial": round((end - begin) / len(trials), 3),
        "seconds_per_epoch": round((end - begin) / len(epochs), 4),
        "trials_per_minute": round(60 * len(trials) / wall, 1),
        "exit_seconds": round(clock.ended - end, 2),
        "best": round(max(line["value"] for line in epochs), 4),
        "target": target,
        "target_seconds": None if first is None else _since(epochs[first], clock),
        "target_epochs": None if first is None else first + 1,
    }


def reached(events: Path, target: float) -> bool:
    """Whether an epoch so far has the accuracy."""
    return events.exists() and any(line.get("value", 0.0) >= target for line in _lines(events))


def show(title: str, rows: Sequence[Row], names: Iterable[str], console: Console) -> None:
    """A column for each contestant: the median of its runs, and their range where they differ."""
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    table = Table("", *contestants, title=title, title_justify="left")
    for name in names:
        runs = [[row[name] for row in rows if row["contestant"] == each] for each in contestants]
        table.add_row(name, *map(_cell, runs))
    console.print(table)


def _lines(events: Path) -> list[Row]:
    return [json.loads(line) for line in events.read_text().splitlines()]


def _cell(values: list[float | None]) -> str:
    """None, a target that was not reached, counts as later than every other."""
    numbers = [math.inf if value is None else value for value in values]
    low, middle, high = (_text(each(numbers)) for each in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def _text(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.4g}"


def _since(line: Row, clock: Clock) -> float:
    return round(float(line["time"]) - clock.started, 2)
