"""A worker and the process that has started it: what is said over the worker's stdin."""

from __future__ import annotations

import os
import threading

BEGIN = b"\n"


def wait_for_parent() -> bool:
    """Waits until the parent says that there is work; False when it has gone without a word."""
    return _read() == BEGIN


def stop_with_parent(stop: threading.Event) -> None:
    """Sets the event when the parent is gone, however it went."""

    def wait() -> None:
        _read()
        stop.set()

    threading.Thread(target=wait, daemon=True, name="parent").start()


def _read() -> bytes:
    # Not through sys.stdin, whose lock would still be held when the interpreter shuts down.
    return os.read(0, 1)
