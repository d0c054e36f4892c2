"""What every contestant is told, and the events that it writes. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# The rungs of successive halving, the same for every contestant that has it: epochs 2, 6, 18, ...
MIN_RESOURCE = 2
REDUCTION_FACTOR = 3
BATCH_SIZE = 32
# As many rows as this project validates with at once; with batches of 32 the peers would be slower.
VALIDATION_BATCH_SIZE = 2048
METRIC = "val_accuracy"

_EVENTS = "PEERS_EVENTS"


@dataclass(frozen=True)
class Job:
    """One search, in the words of no contestant in particular.

    Attributes:
        workers: Trials that train at the same time, each in a process of its own.
        steps_per_execution: Keras's, for contestants that train with `model.fit`.
    """

    task: str
    trials: int
    epochs: int
    seed: int
    workers: int
    pruning: bool
    steps_per_execution: int

    def arguments(self) -> list[str]:
        """The command line that `from_command_line` reads."""
        return [json.dumps(asdict(self))]

    @classmethod
    def from_command_line(cls) -> Job:
        parser = argparse.ArgumentParser()
        parser.add_argument("job", type=json.loads)
        return cls(**parser.parse_args().job)


def events_file(path: Path) -> dict[str, str]:
    """The environment in which `record` writes to this file."""
    return {_EVENTS: str(path)}


def record(event: str, trial: int | str, at: float | None = None, **more: Any) -> None:
    """Appends a line of JSON with the time. One write, so that processes may share the file.

    Args:
        event: `begin` or `end` of a trial, or `epoch` with its number and value.
    """
    line = json.dumps({"event": event, "trial": trial, "time": at or time.time(), **more})
    with Path(os.environ[_EVENTS]).open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
