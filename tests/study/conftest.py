"""Every test that asks for `database_url` or `database` runs on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.study.database import Database
from hpo.study.studies import create_schema
from tests.servers import Open, Plain, Server

# `make check` runs on SQLite, `make test` on PostgreSQL too, `make faults` on MariaDB.
SERVERS = [
    pytest.param("postgresql", marks=pytest.mark.slow),
    pytest.param("mariadb", marks=[pytest.mark.slow, pytest.mark.long]),
]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "hpo.db"
    database = Database(f"sqlite:///{path}", create=True)
    create_schema(database)
    database.close()
    return path


@pytest.fixture(params=["sqlite", *SERVERS])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    """For what a file can't do."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database, which is no file yet on SQLite."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'hpo.db'}"
        return
    server: Server = request.getfixturevalue(backend)
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture
def prepared_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database with the schema and no study."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "hpo.db")
        yield f"sqlite:///{tmp_path / 'hpo.db'}"
        return
    server: Server = request.getfixturevalue(backend)
    url = server.new_database(schema=True)
    yield url
    server.drop(url)


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens databases and closes them after the test."""
    databases: list[Database] = []

    def open_database(url: str, **options: Any) -> Database:
        databases.append(Database(url, **options))
        return databases[-1]

    yield open_database
    for database in databases:
        database.close()


@pytest.fixture
def plain() -> Iterator[Plain]:
    """Plain Optuna's storage on the same database, as anybody else would open it."""
    storages: list[optuna.storages.RDBStorage] = []

    def open_storage(database: Database) -> optuna.storages.RDBStorage:
        url = database.engine.url.render_as_string(hide_password=False)
        storage = optuna.storages.RDBStorage(
            url, skip_compatibility_check=True, skip_table_creation=True
        )
        storages.append(storage)
        return storage

    yield open_storage
    for storage in storages:
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture
def database(prepared_url: str, opened: Open) -> Database:
    """A database with the schema and no study."""
    return opened(prepared_url)


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path, opened: Open) -> Database:
    """For what has nothing to do with the kind of database."""
    shutil.copy(sqlite_template, tmp_path / "hpo.db")
    return opened(f"sqlite:///{tmp_path / 'hpo.db'}")
