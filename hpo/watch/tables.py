"""Tables of a study for people."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len
from rich.table import Table

from hpo.study.snapshot import BestTrial, Snapshot
from hpo.watch.progress import duration


def status_table(snapshot: Snapshot) -> Table:
    """Where a study stands."""
    table = _plain(f"study {snapshot.name}")
    table.add_row("state", _state(snapshot))
    table.add_row("trials", f"{snapshot.finished} of {snapshot.trials} finished")
    for name in ("complete", "pruned", "failed", "running", "waiting", "workers"):
        table.add_row(name, str(getattr(snapshot, name)))
    best = "none yet"
    if snapshot.best is not None:
        best = f"{snapshot.metric} {snapshot.best:.6g} (trial {snapshot.best_number})"
    table.add_row("best", best)
    table.add_row("time", duration(snapshot.seconds))
    if snapshot.seconds_left is not None:
        table.add_row("time left", f"about {duration(snapshot.seconds_left)}")
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


def _state(snapshot: Snapshot) -> str:
    if snapshot.reason:
        return f"{snapshot.state}: {snapshot.reason}"
    if snapshot.state == "running" and snapshot.workers == 0:
        return f"no worker is at work; start one with: hpo worker {snapshot.name}"
    return snapshot.state


def shown(value: Any) -> str:
    """A value short enough to read."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _plain(title: str) -> Table:
    table = Table(
        title=title,
        show_header=False,
        title_justify="left",
        title_style="bold",
        # Of a narrower one rich would break the title.
        min_width=cell_len(title),
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
