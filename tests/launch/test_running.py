"""The launcher attends to workers: it looks at the study, and leaves when they have left."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from hpo.launch import running
from hpo.launch.local import WorkersFailedError
from hpo.launch.running import attend
from hpo.study.database import Database
from hpo.study.schema import create_schema
from hpo.study.snapshot import Snapshot, take_snapshot
from hpo.worker.signals import Interruption
from tests.study.rooms import new_study


class Clock(threading.Event):
    """Time that passes only while somebody waits, or looks."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    thread_time = monotonic

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0
        return self.is_set()


class Leaving:
    """Workers that leave after so many calls of `tend`."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def tend(self, _finished: int) -> bool:
        self.calls -= 1
        return self.calls >= 0

    def stop(self) -> None:
        """They have left."""


@pytest.mark.parametrize(("seconds", "looks"), [(0.001, 100), (0.5, 25), (2.0, 7)])
def test_looks_take_a_quarter_of_the_time_at_most(
    seconds: float, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def look(*arguments: Any) -> Snapshot:
        clock.now += seconds
        return take_snapshot(*arguments)

    monkeypatch.setattr(running, "time", clock)
    monkeypatch.setattr(running, "take_snapshot", look)
    shown: list[Snapshot] = []
    database = Database(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)
    create_schema(database)
    record = new_study(database, trials=3)
    interruption = Interruption()
    interruption.stop = clock
    with pytest.raises(WorkersFailedError):
        attend(database, record, lambda: Leaving(100), interruption, shown.append)
    database.close()
    # And one when they have left.
    assert len(shown) == looks + 1


def test_workers_that_left_do_not_make_a_study_finished(tmp_path: Path) -> None:
    """SIGTERM ends a worker with 0, as the end of the study does."""
    database = Database(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)
    create_schema(database)
    record = new_study(database, trials=3)
    with pytest.raises(
        WorkersFailedError, match=r"all workers have left, and 0 of 3 trials .*goes on"
    ):
        attend(database, record, lambda: Leaving(1), Interruption(), lambda _: None)
    interruption = Interruption()
    interruption.stop.set()
    end = attend(database, record, lambda: Leaving(1), interruption, lambda _: None)
    assert end.interrupted
    database.close()
