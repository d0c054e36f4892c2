"""The first signal asks, the second one ends, and the old handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from hpo.worker.signals import interruptible


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """As from a terminal, wherever the tests run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_sets_the_event(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as interruption:
        assert not interruption.stop.is_set()
        os.kill(os.getpid(), number)
        assert interruption.stop.wait(5)
        assert interruption.by_user == (number == signal.SIGINT)
    assert signal.getsignal(number) is before


def test_a_terminal_that_is_closed_asks_once_however_often_it_says_so() -> None:
    def again() -> None:
        raise AssertionError("it ends the process")

    with interruptible(again) as interruption:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.stop.wait(5)


def test_what_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.stop.is_set()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_counts_as_the_first_one_also_when_a_parent_has_gone() -> None:
    with interruptible() as interruption:
        interruption.stop.set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not interruption.by_user


def test_a_signal_at_any_line_of_a_wait() -> None:
    """The handler runs in the very thread that may hold the event's lock just then."""
    lines, missing = 0, 0
    while not missing:
        lines += 1
        with interruptible() as interruption:
            missing = _lines_missing(lines, lambda event=interruption.stop: event.wait(0.01))
            assert missing or interruption.stop.wait(5)
    assert lines > 10


def _lines_missing(wanted: int, function: Callable[[], Any]) -> int:
    """Sends SIGINT before the nth line that the function runs; how many lines it has too few."""

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal wanted
        if event == "line":
            wanted -= 1
            if wanted == 0:
                os.kill(os.getpid(), signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return max(0, wanted)


TWICE = """
import os, signal, time
from hpo.worker.signals import interruptible
with interruptible():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)
"""


def test_the_second_signal_ends_the_process_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], timeout=60, check=False)
    assert done.returncode == 130
