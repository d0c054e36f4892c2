"""SIGINT and SIGTERM as an event that the main loop looks at."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130


class Interruption:
    """What has arrived so far.

    Attributes:
        stop: Set with the first signal; also by others who want the same.
        by_user: Whether it was Ctrl-C.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.by_user = False


def _end_process() -> None:
    os._exit(INTERRUPTED)


@contextmanager
def interruptible(again: Callable[[], Any] = _end_process) -> Iterator[Interruption]:
    """The first SIGINT or SIGTERM sets an event, a second one calls `again`: ends the process.

    The handlers that were there before are put back. Main thread only.
    """
    interruption = Interruption()
    signalled = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        # Not the event itself: a parent that has gone sets it, and may have sent a signal before.
        if signalled.is_set():
            again()
        else:
            signalled.set()
            interruption.by_user = number == signal.SIGINT
            interruption.stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
