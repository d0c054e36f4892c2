"""The SQL database: one engine, short transactions, and patience while it is away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from hpo.errors import StorageError, StudyNotFoundError, UsageError

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_BUSY_SECONDS = 60
# Words of drivers for what waiting does not mend.
_PERMANENT = (
    "authentication failed",
    "access denied",
    "does not exist",
    "unknown database",
    "no such table",
    "unable to open database file",
    "readonly database",
    "not a database",
    "malformed",
)


def parse_url(text: str) -> sa.URL:
    """The URL with the driver that this project ships with.

    Raises UsageError for a text that is no URL or names a database that is not supported.
    """
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise UsageError(
            "the storage is not a database URL; expected something like sqlite:///hpo.db or "
            "postgresql://user:password@host/database"
        ) from None
    name = url.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise UsageError(
            f"the storage names the database {name!r}; expected one of sqlite, postgresql, mysql"
        )
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(
            "a SQLite storage needs a file, because every process opens it again; "
            "expected something like sqlite:///hpo.db"
        )
    return url if "+" in url.drivername else url.set(drivername=_DRIVERS[name])


def masked(text: str) -> str:
    """The URL without its password, fit for a message."""
    try:
        return parse_url(text).render_as_string(hide_password=True)
    except UsageError:
        return "(not a database URL)"


class Database:
    """Transactions on one database; retries with backoff while the database is away.

    Thread-safe. A unit of work may run more than once, so it must hold no state of its own.
    A read never creates anything: opening a SQLite file that is not there raises
    StudyNotFoundError unless `create` is set.

    Args:
        url: A SQLAlchemy URL with its password.
        create: Create a SQLite file that does not exist.
        patience: Seconds that one transaction keeps trying before StorageError is raised.
    """

    def __init__(self, url: str, *, create: bool = False, patience: float = 10.0) -> None:
        self.url = url
        self.patience = patience
        self.engine = make_engine(url, create=create)

    def __repr__(self) -> str:
        return f"Database({masked(self.url)!r})"

    @property
    def dialect(self) -> str:
        """`sqlite`, `postgresql`, `mysql` or `mariadb`."""
        return self.engine.dialect.name

    def read(self, work: Work[T], patience: float | None = None) -> T:
        """Runs `work` in a transaction that takes no write lock."""

        def attempt() -> T:
            connection = self.engine.connect().execution_options(hpo_read_only=True)
            with connection, connection.begin():
                return work(connection)

        return self._patiently(attempt, self.patience if patience is None else patience)

    def write(self, work: Work[T], patience: float | None = None) -> T:
        """Runs `work` in a transaction and commits it."""

        def attempt() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return self._patiently(attempt, self.patience if patience is None else patience)

    def close(self) -> None:
        self.engine.dispose()

    def _patiently(self, attempt: Callable[[], T], patience: float) -> T:
        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            stop=stop_after_delay(patience),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except (OperationalError, InterfaceError) as error:
            # The driver's own text may repeat the URL, so only its first line is shown, masked.
            raise StorageError(self._explain(error)) from None

    def _explain(self, error: DBAPIError) -> str:
        url = self.engine.url
        lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        reason = lines[0].replace(url.password, "***") if url.password else lines[0]
        return (
            f"the database {masked(self.url)} is out of reach: {reason}; "
            "check that it runs and that --storage (or HPO_STORAGE) is right"
        )


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed a little later."""
    if not isinstance(error, DBAPIError):
        return False
    text = str(error.orig).lower()
    if any(words in text for words in _PERMANENT):
        return False
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def make_engine(url: str, *, create: bool = False) -> sa.Engine:
    """An engine for `url`; SQLite gets WAL, a long busy timeout and immediate transactions."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, create)
    options = {"connect_timeout": 5} if parsed.get_backend_name() == "postgresql" else {}
    try:
        return sa.create_engine(parsed, pool_size=2, connect_args=options)
    except ImportError as error:
        raise UsageError(
            f"the driver for {parsed.get_backend_name()} is not installed: {error.name}; "
            f"install it with pip install {error.name}"
        ) from None


def _sqlite_engine(url: sa.URL, create: bool) -> sa.Engine:
    path = Path(url.database or "")
    if not create and not path.is_file():
        raise StudyNotFoundError(
            f"there is no database file {path}; check --storage (or HPO_STORAGE), "
            "or create the study with: hpo submit STUDY_FILE"
        )
    if create and not path.absolute().parent.is_dir():
        raise UsageError(f"the folder of the database file {path} does not exist; create it first")
    mode = "rwc" if create else "rw"
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    engine = sa.create_engine(url, creator=connect)
    prepare_sqlite(engine)
    return engine


def prepare_sqlite(engine: sa.Engine) -> None:
    """Makes concurrent writers queue instead of failing with "database is locked"."""

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        read_only = connection.get_execution_options().get("hpo_read_only", False)
        # A deferred transaction that turns into a write fails at once when another one wrote.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
