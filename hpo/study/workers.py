"""The registry of workers: who is at work on a study, and since when."""

from __future__ import annotations

import os
import socket
import uuid

import sqlalchemy as sa

from hpo.study import tables as t
from hpo.study.database import Database


def worker_name() -> str:
    """A name that no other worker has: its host and random letters."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:10]}"


def register(database: Database, study_id: int, worker: str) -> None:
    row = {"worker": worker, "study_id": study_id, "host": socket.gethostname(), "pid": os.getpid()}
    moments = {"started_at": t.clock(), "seen_at": t.clock()}

    def work(connection: sa.Connection) -> None:
        # Deleted first, so that the work may be repeated.
        connection.execute(t.hpo_workers.delete().where(t.hpo_workers.c.worker == worker))
        connection.execute(t.hpo_workers.insert().values(**row, **moments))

    database.write(work)


def seen(database: Database, worker: str) -> None:
    _update(database, worker, seen_at=t.clock())


def remove(database: Database, worker: str) -> None:
    """For one that has not been at work."""
    row = t.hpo_workers.delete().where(t.hpo_workers.c.worker == worker)
    database.write(lambda connection: connection.execute(row))


def left(database: Database, worker: str) -> None:
    _update(database, worker, seen_at=t.clock(), left_at=t.clock())


def _update(database: Database, worker: str, **values: object) -> None:
    row = t.hpo_workers.c.worker == worker
    database.write(lambda c: c.execute(t.hpo_workers.update().where(row).values(**values)))
