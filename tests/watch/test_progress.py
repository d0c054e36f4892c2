"""Progress in words, as lines and as a bar."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from hpo.study.snapshot import Snapshot
from hpo.watch.progress import duration, in_words, progress_display
from hpo.watch.tables import status_table

SNAPSHOT = Snapshot(
    name="digits",
    metric="val_accuracy",
    direction="maximize",
    state="running",
    timed_out=False,
    reason=None,
    trials=40,
    complete=6,
    pruned=3,
    failed=1,
    running=2,
    waiting=1,
    workers=2,
    best=0.96875,
    best_number=4,
    seconds=30.0,
    seconds_left=90.0,
)


def test_a_line_tells_everything() -> None:
    assert in_words(SNAPSHOT) == (
        "10/40 trials, 2 running, 3 pruned, 1 failed, 1 waiting, "
        "best val_accuracy 0.96875 (trial 4), about 1 min 30 s left"
    )


def test_no_estimate_where_there_is_none() -> None:
    assert "left" not in in_words(replace(SNAPSHOT, seconds_left=None))


@pytest.mark.parametrize(
    ("seconds", "words"), [(41.6, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_read_by_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_without_a_terminal_a_line_for_each_change() -> None:
    output = io.StringIO()
    with progress_display(Console(file=output)) as display:
        for finished in (6, 6, 7):
            display.show(replace(SNAPSHOT, complete=finished))
    lines = output.getvalue().splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["10/40", "11/40"]


def test_a_terminal_shows_a_bar() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=140)
    with progress_display(console) as display:
        display.show(SNAPSHOT)
    assert "digits" in output.getvalue()
    assert "10/40 trials" in output.getvalue()


def test_the_status_table_says_why_a_study_is_stopped() -> None:
    output = io.StringIO()
    console = Console(file=output, width=120)
    console.print(status_table(replace(SNAPSHOT, state="stopped", reason="time limit")))
    assert "stopped: time limit" in output.getvalue()
    assert "10 of 40 finished" in output.getvalue()


def test_the_status_table_says_when_nobody_works() -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(status_table(replace(SNAPSHOT, workers=0)))
    assert "hpo worker digits" in output.getvalue()
