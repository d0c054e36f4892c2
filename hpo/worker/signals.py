"""SIGINT, SIGTERM and SIGHUP as an event that the main loop looks at."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any

INTERRUPTED = 130

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    """The first signal sets an event, a second one calls `again`: ends the process.

    Signals are SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under `nohup`. The handlers
    that were there before are put back. Main thread only.
    """
    interruption = Interruption()
    # A handler runs in the main thread, between any two of its instructions: also where that holds
    # the event's lock, because it waits for the event. So another thread sets it, and the queue
    # between them is one that handlers may use.
    arrived: SimpleQueue[bool] = SimpleQueue()
    setter = threading.Thread(
        target=_set_when_told, args=(arrived, interruption.stop), daemon=True, name="signals"
    )
    signalled = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal signalled
        # Not the event itself: a parent that has gone sets it, and may have sent a signal before.
        if signalled:
            # A terminal that is closed sends it twice: through its shell, and by itself.
            if number != signal.SIGHUP:
                again()
        else:
            signalled = True
            interruption.by_user = number == signal.SIGINT
            arrived.put(True)

    setter.start()
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [number for number in _SIGNALS if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        arrived.put(False)
        setter.join()


def _set_when_told(arrived: SimpleQueue[bool], stop: threading.Event) -> None:
    """Sets the event unless it is told that no signal will come any more."""
    if arrived.get():
        stop.set()
