"""Databases for tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.study.database import Database
from hpo.study.studies import create_schema

Open = Callable[..., Database]
Plain = Callable[[Database], optuna.storages.RDBStorage]

_NUMBER = itertools.count()


class Server:
    """One PostgreSQL server, with a database for each test."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.folder = folder
        self.url = sa.make_url(uri).set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        for setting in ("fsync", "synchronous_commit"):
            self.execute(f"ALTER SYSTEM SET {setting} = off")
        self.execute("SELECT pg_reload_conf()")
        self._template = self.new_database()
        database = Database(self._template)
        create_schema(database)
        database.close()

    def execute(self, statement: str) -> Any:
        with self._engine.connect() as connection:
            result = connection.execute(sa.text(statement))
            return result.scalar() if result.returns_rows else None

    def new_database(self, *, schema: bool = False) -> str:
        name = f"room_{next(_NUMBER)}"
        template = sa.make_url(self._template).database if schema else "template1"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {sa.make_url(url).database} WITH (FORCE)")

    def close(self) -> None:
        self._engine.dispose()
