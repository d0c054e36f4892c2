"""A worker and the process that has started it."""

from __future__ import annotations

import os
import threading


def stop_with_parent(stop: threading.Event) -> None:
    """Sets the event when the parent is gone, however it went: stdin is a pipe from there."""

    def wait() -> None:
        # Not through sys.stdin, whose lock would still be held when the interpreter shuts down.
        os.read(0, 1)
        stop.set()

    threading.Thread(target=wait, daemon=True, name="parent").start()
