"""The thread that keeps a lease alive."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from hpo.study import tables as t
from hpo.study import workers
from hpo.study.database import Database
from hpo.study.schema import create_schema
from hpo.worker.leasekeeper import LeaseKeeper
from tests.conftest import wait_for
from tests.study.rooms import new_study, rows, slots_of


def test_it_outlives_whatever_the_database_answers(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)) as database:
        create_schema(database)
        slots = slots_of(database, new_study(database), seconds=0.15)
        workers.register(database, slots.study_id, slots.worker)
        [study] = rows(database, t.hpo_studies)
        database.write(lambda connection: connection.execute(t.hpo_studies.delete()))
        keeper = LeaseKeeper(slots)

        def seen() -> float:
            query = sa.select(t.hpo_workers.c.seen_at)
            return float(database.read(lambda c: c.execute(query).scalar_one()))

        for _ in range(3):
            before = seen()
            wait_for(lambda before=before: seen() > before, seconds=10)
        stopped = t.hpo_studies.insert().values(**study | {"state": "stopped"})
        database.write(lambda connection: connection.execute(stopped))
        wait_for(lambda: keeper.study_stopped)
        keeper.close()
