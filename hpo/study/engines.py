"""Engines: connections set up as each kind of database needs them."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError

from hpo.errors import StudyNotFoundError, UsageError
from hpo.study.mysql import make_mysql_engine
from hpo.study.trouble import PASSING, wrong_options
from hpo.study.urls import EMBEDDED, parse_url

_EXTRAS = {"mysql": "'keras-hpo[mysql]'"}
_BUSY_SECONDS = 60
# A connection whose other end has gone without a word is given up after some seconds, not hours.
_POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def make_engine(url: str, *, create: bool = False) -> sa.Engine:
    """An engine for `url`, with connections set up as its kind of database needs them.

    Raises:
        UsageError: What the URL names can't be used, be it now or when it connects.
        StudyNotFoundError: There is no such file or embedded database, and `create` is not set.
    """
    parsed = parse_url(url)
    backend = parsed.get_backend_name()
    if backend == EMBEDDED:
        return _embedded_engine(Path(parsed.database or ""), create)
    _check_driver(parsed)
    try:
        if backend == "sqlite":
            return _sqlite_engine(parsed, create)
        make = _postgresql_engine if backend == "postgresql" else make_mysql_engine
        engine = make(parsed)
    except ImportError as error:
        raise UsageError(
            f"the driver for {backend} is not installed: {error.name}; "
            f"install it with pip install {_EXTRAS.get(backend, error.name)}"
        ) from None
    except (ArgumentError, ValueError) as error:
        raise wrong_options(str(error), url) from None
    _tell_wrong_options(engine, url)
    return engine


def _check_driver(url: sa.URL) -> None:
    backend = url.get_backend_name()
    try:
        waits = not url.get_dialect().is_async
    except ArgumentError:
        raise UsageError(
            f"the storage names an unknown driver: {url.drivername}; write {backend}:// only"
        ) from None
    if not waits:
        raise UsageError(
            f"the storage names a driver for asyncio, which is not used here: {url.drivername}; "
            f"write {backend}:// only"
        )


def _tell_wrong_options(engine: sa.Engine, url: str) -> None:
    """For drivers that meet an option that they do not know with any error of Python's."""

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: object, arguments: Any, options: Any) -> Any:
        try:
            return dialect.connect(*arguments, **options)
        except (TypeError, ValueError, AttributeError) as error:
            raise wrong_options(str(error), url) from None
        except (FileNotFoundError, PermissionError) as error:
            # A certificate, perhaps; the driver does not say which file.
            if not parse_url(url).query:
                raise
            raise wrong_options(error.strerror or str(error), url) from error


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    options = {key: value for key, value in _POSTGRESQL_OPTIONS.items() if key not in url.query}
    engine = sa.create_engine(url, pool_size=2, connect_args=options)

    @event.listens_for(engine, "connect")
    def _limit_idle_transactions(connection: Any, _record: object) -> None:
        # A machine that loses power inside a transaction must not hold its locks for hours.
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def _leave(context: sa.engine.ExceptionContext) -> None:
        # A connection stays as it was made: only another one sees when this has passed.
        if getattr(context.original_exception, "sqlstate", None) in PASSING:
            context.is_disconnect = True

    return engine


def _embedded_engine(folder: Path, create: bool) -> sa.Engine:
    from hpo.study.embedded import cluster_at

    cluster = cluster_at(folder)
    cluster.check(create=create)
    engine = _postgresql_engine(cluster.url)
    cluster.attend(engine, create=create)
    return engine


def _sqlite_engine(url: sa.URL, create: bool) -> sa.Engine:
    path = Path(url.database or "")
    if not create and not path.is_file():
        raise StudyNotFoundError(
            f"there is no database file {path}; check --storage (or HPO_STORAGE), "
            "or create the study with: hpo submit STUDY_FILE"
        )
    folder = path.absolute().parent
    if create and not folder.is_dir():
        raise UsageError(f"the folder of the database file {path} does not exist; create it first")
    if create and not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"the folder {folder} of the database file can't be written; choose another --storage "
            "(or HPO_STORAGE)"
        )
    mode = "rwc" if create else "rw"
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    engine = sa.create_engine(url, creator=connect)
    prepare_sqlite(engine, wal=create)
    return engine


def prepare_sqlite(engine: sa.Engine, *, wal: bool = False) -> None:
    """Makes concurrent writers queue instead of failing with "database is locked".

    With `wal` the file is turned to write-ahead logging, which it keeps from then on. Whoever
    only opens a file leaves it as it is.
    """

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        read_only = connection.get_execution_options().get("hpo_read_only", False)
        # A deferred transaction that turns into a write fails at once when another one wrote.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
