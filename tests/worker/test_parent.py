"""A worker leaves when the process that has started it is gone."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
from hpo.worker.parent import stop_with_parent
stop = threading.Event()
stop_with_parent(stop)
print("here", flush=True)
stop.wait()
"""


def test_a_closed_pipe_stops() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()
