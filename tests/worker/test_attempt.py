"""What a worker answers its trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from hpo.errors import StorageError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.leases import Lease, Outcome
from hpo.study.storage import StudyStorage
from hpo.study.studies import StudyRecord, create_schema
from hpo.worker import messages as m
from hpo.worker.attempt import Attempt
from hpo.worker.paths import StudyPaths
from hpo.worker.trainers import Trainer
from tests.study.rooms import claimed, new_study, rows, slots_of


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)) as database:
        create_schema(database)
        yield database


class _Trainer:
    """Says what a test has it say, and keeps what it is told."""

    def __init__(self) -> None:
        self.says: list[Any] = []
        self.told: list[Any] = []

    def receive(self, _timeout: float) -> Any:
        return self.says.pop(0)

    def send(self, message: Any) -> None:
        self.told.append(message)


class _Working:
    """A worker in the middle of a trial."""

    def __init__(self, database: Database, record: StudyRecord, name: str, folder: Path) -> None:
        self._slots = slots_of(database, record, name)
        self.storage = StudyStorage(database, record)
        self._trainer = _Trainer()
        self.lease: Lease = claimed(self._slots)
        self._attempt = Attempt(
            self.lease,
            record.spec,
            record,
            self._slots,
            self.storage,
            StudyPaths(folder, record.name, folder, record.mark),
            cast("Trainer", self._trainer),
        )

    @property
    def task(self) -> m.TrialTask:
        task: m.TrialTask = self._trainer.told[0]
        return task

    def hears(self, message: Any) -> None:
        self._trainer.says.append(message)
        self._attempt.step()

    def give_back(self) -> None:
        self._slots.release(self.lease)

    def is_pruned_after(self, epoch: int, value: float) -> bool:
        self.hears(m.Report(epoch, value))
        answer: m.Answer = self._trainer.told[-1]
        return answer.prune

    def end(self, state: str, value: float | None) -> None:
        self.storage.finish(self._slots, Outcome(state, value))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_trial_that_leads_is_not_pruned(
    direction: str, database: Database, tmp_path: Path
) -> None:
    sign = 1 if direction == "maximize" else -1
    # It would prune at every report.
    pruner = {"type": "threshold", "lower": 9.0}
    record = new_study(database, trials=6, direction=direction, search={"pruner": pruner})

    def begun(name: str) -> _Working:
        return _Working(database, record, name, tmp_path)

    a, b, c = begun("a"), begun("b"), begun("c")
    assert not a.is_pruned_after(1, sign * 0.5), "nobody else has reported"
    assert b.is_pruned_after(1, sign * 0.4), "a runs and is better"
    assert not c.is_pruned_after(1, sign * 0.6)
    assert a.is_pruned_after(2, sign * 0.55)
    assert not c.is_pruned_after(2, sign * 0.3), "its best epoch counts"
    # Of equal ones the first.
    assert a.lease.number < c.lease.number
    assert c.is_pruned_after(3, sign * 0.6) is False
    assert not a.is_pruned_after(3, sign * 0.6)
    assert c.is_pruned_after(4, sign * 0.6)
    b.end("PRUNED", sign * 0.4)
    # Who fails leads no more.
    a.end("FAIL", None)
    assert not c.is_pruned_after(5, sign * 0.1)
    c.end("COMPLETE", sign * 0.6)
    d = begun("d")
    assert d.is_pruned_after(1, sign * 0.6), "as good as a complete one is not better"
    assert not d.is_pruned_after(2, sign * 0.7)
    assert not d.is_pruned_after(3, float("nan"))


ALWAYS = {"pruner": {"type": "threshold", "upper": 0.0}}


def test_a_trial_that_was_to_be_pruned_ends_in_other_hands(
    database: Database, tmp_path: Path
) -> None:
    record = new_study(database, trials=2, search=ALWAYS)
    leading = _Working(database, record, "a", tmp_path)
    assert not leading.is_pruned_after(1, 0.9)
    weak = _Working(database, record, "b", tmp_path)
    assert not weak.task.pruned
    assert weak.is_pruned_after(1, 0.1)
    weak.give_back()
    heir = _Working(database, record, "c", tmp_path)
    assert heir.lease.number == weak.lease.number
    assert (heir.task.reported, heir.task.pruned) == (1, True)


def test_a_prune_stands_when_the_database_goes_away_then(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = new_study(database, trials=2, search=ALWAYS)
    leading = _Working(database, record, "a", tmp_path)
    assert not leading.is_pruned_after(1, 0.9)
    weak = _Working(database, record, "b", tmp_path)

    def away(*_: Any) -> None:
        raise StorageError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(weak.storage, "flush", away)
        assert weak.is_pruned_after(1, 0.1)
    weak.hears(finished(tmp_path, pruned=True, value=0.1))
    states = [row["state"] for row in rows(database, t.trials)]
    assert states == ["RUNNING", "PRUNED"]


def test_a_trial_says_once_in_an_outage_that_it_goes_on(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    working = _Working(database, new_study(database, trials=1), "a", tmp_path)

    def away(*_: Any) -> None:
        raise StorageError("the database is away")

    for epoch in (1, 4):
        with monkeypatch.context() as patch:
            patch.setattr(working.storage, "flush", away)
            working.is_pruned_after(epoch, 0.1)
            working.is_pruned_after(epoch + 1, 0.1)
        working.is_pruned_after(epoch + 2, 0.1)
    assert caplog.messages == ["trial 0 goes on without the database; its reports are kept"] * 2


def test_an_epoch_that_is_trained_again_has_the_value_that_is_saved(
    database: Database, tmp_path: Path
) -> None:
    record = new_study(database, trials=2, search=ALWAYS)
    first = _Working(database, record, "a", tmp_path)
    assert not first.is_pruned_after(1, 0.9)
    other = _Working(database, record, "b", tmp_path)
    assert not other.is_pruned_after(1, 0.95)
    first.give_back()
    again = _Working(database, record, "c", tmp_path)
    assert not again.is_pruned_after(1, 0.5), "the study has judged this epoch"
    again.hears(finished(tmp_path, pruned=False, value=0.5))
    reports = rows(database, t.trial_intermediate_values)
    assert [row["intermediate_value"] for row in reports] == [0.5, 0.95]
    assert [row["value"] for row in rows(database, t.trial_values)] == [0.5]


def finished(folder: Path, *, pruned: bool, value: float) -> m.Finished:
    return m.Finished(
        pruned=pruned,
        diverged=None,
        epochs=1,
        best_epoch=1,
        value=value,
        seconds=0.1,
        checkpoint=folder / "epoch-00001.1.zip",
        files=(),
    )
