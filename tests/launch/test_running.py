"""The launcher attends to workers: it looks at the study, and leaves when they have left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import StudyStoppedError
from hpo.launch import running
from hpo.launch.local import WorkersFailedError
from hpo.launch.running import RunEnd, attend, time_limit_words
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.leases import NoSlot, Slots, TrialWrites
from hpo.study.schema import create_schema
from hpo.study.snapshot import Snapshot, take_snapshot
from hpo.study.studies import StudyRecord, stop_study
from hpo.worker.signals import Interruption
from tests.study.rooms import COMPLETE, claimed, new_study, slots_of


class Clock(threading.Event):
    """Time that passes only while somebody waits, or looks."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0
        return self.is_set()


class Leaving:
    """Workers that leave after so many calls of `tend`, with so many trials done."""

    def __init__(self, slots: Slots, calls: int = 1, trials: int = 0) -> None:
        self.slots = slots
        self.calls = calls
        self.trials = trials

    def tend(self, _finished: int) -> bool:
        self.calls -= 1
        if self.calls < 0:
            for _ in range(self.trials):
                self.slots.write(claimed(self.slots), TrialWrites(), COMPLETE)
        return self.calls >= 0

    def stop(self) -> None:
        """They have left."""


class Room:
    """A study of three trials, and workers for it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.record: StudyRecord = new_study(database, trials=3)
        self.slots = slots_of(database, self.record)
        self.interruption = Interruption()
        self.interruption.stop = Clock()
        self.shown: list[Snapshot] = []

    def attend(self, start: Callable[[], Leaving]) -> RunEnd:
        return attend(self.database, self.record, start, self.interruption, self.shown.append)

    def starts_nobody(self) -> Leaving:
        raise AssertionError("there is nothing to do")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    database = Database(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)
    create_schema(database)
    yield Room(database)
    database.close()


@pytest.mark.parametrize(("seconds", "looks"), [(0.001, 100), (0.1, 15), (60.0, 5)])
def test_looks_take_little_of_the_time_and_come_again_after_a_long_one(
    seconds: float, looks: int, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = room.interruption.stop
    assert isinstance(clock, Clock)

    def look(*arguments: Any) -> Snapshot:
        clock.now += seconds
        return take_snapshot(*arguments)

    monkeypatch.setattr(running, "time", clock)
    monkeypatch.setattr(running, "take_snapshot", look)
    end = room.attend(lambda: Leaving(room.slots, calls=100, trials=3))
    # And one when they have left.
    assert len(room.shown) == looks + 1
    assert not end.interrupted
    assert end.snapshot == room.shown[-1]


def test_workers_that_leave_too_early_are_started_again(room: Room) -> None:
    done = [0, 0, 1, 0, 0, 0, 1, 0, 1]
    end = room.attend(lambda: Leaving(room.slots, trials=done.pop(0)))
    assert done == []
    assert (end.snapshot.state, end.snapshot.finished) == ("finished", 3)
    assert not end.interrupted


def test_workers_that_leave_again_and_again_are_an_error(room: Room) -> None:
    done = [1, 0, 0, 0, 0, 0]
    with pytest.raises(WorkersFailedError, match=r"1 of 3 trials are .* goes on from here"):
        room.attend(lambda: Leaving(room.slots, trials=done.pop(0)))
    assert done == []


def test_a_time_limit_that_passes_is_an_end(room: Room) -> None:
    class Late(Leaving):
        def stop(self) -> None:
            late = t.hpo_studies.update().values(deadline=1.0)
            room.database.write(lambda connection: connection.execute(late))
            assert room.slots.claim() is NoSlot.STOPPED

    end = room.attend(lambda: Late(room.slots, trials=1))
    assert (end.interrupted, end.snapshot.timed_out, end.snapshot.finished) == (False, True, 1)
    words = time_limit_words(end.snapshot)
    assert "'digits' has passed: 1 of 3 trials" in words
    assert "hpo resume digits" in words
    # Again: nobody is started.
    assert room.attend(room.starts_nobody).snapshot.timed_out


def test_a_study_that_was_stopped_is_an_error(room: Room) -> None:
    stop_study(room.database, room.record, "enough")
    with pytest.raises(StudyStoppedError, match=r"enough; 0 of 3 .* hpo resume digits"):
        room.attend(room.starts_nobody)


def test_interrupted_workers_are_not_started_again(room: Room) -> None:
    def start() -> Leaving:
        room.interruption.stop.set()
        return Leaving(room.slots)

    end = room.attend(start)
    assert (end.interrupted, end.snapshot.state) == (True, "running")
