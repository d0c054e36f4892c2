"""Tables of a study for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from hpo.study.snapshot import BestTrial, Snapshot
from hpo.watch.progress import duration, seconds_left


def status_table(snapshot: Snapshot) -> Table:
    """Where a study stands."""
    table = _plain(f"study {snapshot.name}")
    state = snapshot.state if not snapshot.reason else f"{snapshot.state}: {snapshot.reason}"
    table.add_row("state", state)
    table.add_row("trials", f"{snapshot.finished} of {snapshot.trials} finished")
    for name in ("complete", "pruned", "failed", "running", "waiting", "workers"):
        table.add_row(name, str(getattr(snapshot, name)))
    best = "none yet"
    if snapshot.best is not None:
        best = f"{snapshot.metric} {snapshot.best:.6g} (trial {snapshot.best_number})"
    table.add_row("best", best)
    table.add_row("time", duration(snapshot.seconds))
    left = seconds_left(snapshot)
    if left is not None:
        table.add_row("time left", f"about {duration(left)}")
    return table


def best_table(best: BestTrial, metric: str, figures: dict[str, str] | None = None) -> Table:
    """The best configuration, its value, and figures to go below it."""
    table = _plain(f"best configuration: trial {best.number}")
    for name, value in best.params.items():
        table.add_row(name, shown(value))
    table.add_section()
    table.add_row(metric, shown(best.value))
    for name, text in (figures or {}).items():
        table.add_row(name, text)
    return table


def shown(value: Any) -> str:
    """A value short enough to read."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _plain(title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
