from __future__ import annotations

import os

import pytest

from hpo.study import tables as t
from hpo.study import workers
from hpo.study.database import Database
from hpo.study.snapshot import take_snapshot
from tests.study.rooms import new_study, rows


def test_names_differ() -> None:
    assert len({workers.worker_name() for _ in range(100)}) == 100


def test_worker_comes_is_seen_and_goes(database: Database) -> None:
    record = new_study(database)
    workers.register(database, record.study_id, "a")
    workers.register(database, record.study_id, "b")
    (first, _) = rows(database, t.hpo_workers)
    assert (first["worker"], first["pid"], first["left_at"]) == ("a", os.getpid(), None)
    assert take_snapshot(database, record).workers == 2
    workers.left(database, "a")
    assert take_snapshot(database, record).workers == 1
    assert rows(database, t.hpo_workers)[0]["left_at"] is not None


def test_registering_twice_is_harmless(database: Database) -> None:
    record = new_study(database)
    workers.register(database, record.study_id, "a")
    workers.register(database, record.study_id, "a")
    assert len(rows(database, t.hpo_workers)) == 1


def test_worker_that_vanished_is_not_counted(database: Database) -> None:
    record = new_study(database)
    workers.register(database, record.study_id, "a")
    long_ago = t.hpo_workers.update().values(seen_at=1.0)
    database.write(lambda connection: connection.execute(long_ago))
    assert take_snapshot(database, record).workers == 0
    workers.seen(database, "a")
    assert take_snapshot(database, record).workers == 1


@pytest.mark.parametrize("name", ["nobody", "ünï'; --"])
def test_unknown_worker_is_no_error(name: str, database: Database) -> None:
    workers.seen(database, name)
    workers.left(database, name)
