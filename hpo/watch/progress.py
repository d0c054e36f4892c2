"""Progress of a study on a terminal: a live bar, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from hpo.study.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Display(Protocol):
    """Shows where a study stands."""

    def show(self, snapshot: Snapshot) -> None: ...


@contextmanager
def progress_display(console: Console) -> Iterator[Display]:
    """A live bar on a terminal; elsewhere a line whenever a trial has ended."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    # Here, because `hpo status` needs the words of this module and no bar.
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[int, int] | None = None

    def show(self, snapshot: Snapshot) -> None:
        seen = (snapshot.finished, min(1, snapshot.running))
        if seen != self._last:
            self._last = seen
            self._console.print(in_words(snapshot), highlight=False, soft_wrap=True)


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", text="")

    def show(self, snapshot: Snapshot) -> None:
        self._progress.update(
            self._task,
            description=snapshot.name,
            total=snapshot.trials,
            completed=snapshot.finished,
            text=in_words(snapshot),
        )


def in_words(snapshot: Snapshot) -> str:
    """One line: trials done of N, how they ended, the best value, the time left."""
    parts = [f"{snapshot.finished}/{snapshot.trials} trials"]
    counts = {
        "running": snapshot.running,
        "pruned": snapshot.pruned,
        "failed": snapshot.failed,
        "waiting": snapshot.waiting,
    }
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    if snapshot.best is not None:
        parts.append(f"best {snapshot.metric} {snapshot.best:.5g} (trial {snapshot.best_number})")
    if snapshot.seconds_left is not None:
        parts.append(f"about {duration(snapshot.seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
