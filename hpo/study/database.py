"""The SQL database: one engine, short transactions, and patience while it is away."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_any,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from hpo.errors import StorageError, StudyNotFoundError, UsageError
from hpo.study.mysql import TRANSIENT, make_mysql_engine

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    # Optuna knows the dialect "mysql" only, and SQLAlchemy sees by itself which server it is.
    "mariadb": "mysql+pymysql",
}
# The scheme of a PostgreSQL that is started when it is needed, and its folder.
EMBEDDED = "embedded"
EMBEDDED_FOLDER = "hpo-postgresql"
_EXTRAS = {"mysql": "'keras-hpo[mysql]'"}
_BUSY_SECONDS = 60
_ALONE: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
# A connection whose other end has gone without a word is given up after some seconds, not hours.
_POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# PostgreSQL's states of a server that takes no writes for a while, as a standby that is about to
# lead, and of a transaction that it ended because nothing came.
_PASSING = ("25006", "25P03")
# Words of drivers for what waiting does not mend.
_PERMANENT = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
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

    Raises UsageError for a text that is no URL or names a database that is not supported. The
    message never repeats the text, which may hold a password.
    """
    if text == EMBEDDED or text.startswith(f"{EMBEDDED}:"):
        return _embedded_url(text.removeprefix(EMBEDDED).removeprefix(":"))
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        # ValueError: what stands where the port should be is no number.
        raise UsageError(_NO_URL) from None
    # Neither would be hidden where the URL is shown.
    if "@" in (url.host or "") or any("passw" in key for key in url.query):
        raise UsageError(_NO_URL)
    name = url.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise UsageError(
            f"the storage names the database {name!r}; expected one of sqlite, postgresql, mysql, "
            "or embedded"
        )
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(
            "a SQLite storage needs a file, because every process opens it again; "
            "expected something like sqlite:///hpo.db"
        )
    dialect, _, driver = _DRIVERS[name].partition("+")
    driver = url.drivername.partition("+")[2] or driver
    return url.set(drivername=f"{dialect}+{driver}" if driver else dialect)


def _embedded_url(folder: str) -> sa.URL:
    if folder.startswith("//"):
        raise UsageError(
            "an embedded storage is followed by a folder and not by slashes; "
            "expected embedded or embedded:/some/folder"
        )
    path = Path(folder or EMBEDDED_FOLDER)
    # The shell expands it only where a word begins.
    path = path.expanduser() if folder.startswith("~/") else path
    return sa.URL.create(EMBEDDED, database=str(path.resolve()))


_NO_URL = (
    "the storage is not a database URL; expected embedded, or something like sqlite:///hpo.db or "
    "postgresql://user:password@host/database, with special characters of the password "
    "percent-encoded (@ is %40, / is %2F, : is %3A)"
)


def masked(text: str) -> str:
    """The URL without its password, fit for a message."""
    try:
        url = parse_url(text)
    except UsageError:
        return "(not a database URL)"
    if url.drivername == EMBEDDED:
        return f"{EMBEDDED}:{url.database}"
    return url.render_as_string(hide_password=True)


def import_driver(text: str) -> None:
    """Imports what a `Database` of this URL imports when it is made, and connects to nothing."""
    url = parse_url(text)
    if url.drivername == EMBEDDED:
        import hpo.study.embedded  # noqa: F401

        url = sa.make_url(f"{_DRIVERS['postgresql']}://")
    url.get_dialect().import_dbapi()


class Database:
    """Transactions on one database; retries with backoff while the database is away.

    Thread-safe. A unit of work may run more than once, so it must hold no state of its own.
    A read never creates anything: opening a SQLite file or an embedded database that is not there
    raises StudyNotFoundError unless `create` is set.

    Args:
        url: A SQLAlchemy URL with its password, or `embedded:FOLDER`.
        create: Create a SQLite file or an embedded database that does not exist.
        patience: Seconds that one transaction keeps trying before StorageError is raised.
        hurry: Once set, no transaction is tried a second time: whoever leaves can't wait.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = False,
        patience: float = 10.0,
        hurry: threading.Event | None = None,
    ) -> None:
        self.url = url
        self.patience = patience
        self._hurry = hurry or threading.Event()
        self.engine = make_engine(url, create=create)
        self._reading = {"hpo_read_only": True} | (_ALONE if self.dialect == "postgresql" else {})

    def __repr__(self) -> str:
        return f"Database({masked(self.url)!r})"

    @property
    def dialect(self) -> str:
        """`sqlite`, `postgresql` or `mysql`, which stands for MariaDB too."""
        return self.engine.dialect.name

    def read(self, work: Work[T], patience: float | None = None) -> T:
        """Runs `work` in a transaction that takes no write lock.

        On PostgreSQL, where each statement sees the database anew in any case, without BEGIN and
        COMMIT: each of them would wait for the server like a statement.
        """

        def attempt() -> T:
            connection = self.engine.connect().execution_options(**self._reading)
            with connection, connection.begin():
                return work(connection)

        return self._patiently(attempt, self.patience if patience is None else patience)

    def write(self, work: Work[T], patience: float | None = None) -> T:
        """Runs `work` in a transaction and commits it."""

        def attempt() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return self._patiently(attempt, self.patience if patience is None else patience)

    def write_at_once(self, work: Work[T], patience: float | None = None) -> T:
        """As `write`, for work that is one single statement: it commits by itself."""

        def attempt() -> T:
            connection = self.engine.connect().execution_options(**_ALONE)
            with connection, connection.begin():
                return work(connection)

        return self._patiently(attempt, self.patience if patience is None else patience)

    def adopt(self, engine: sa.Engine) -> None:
        """Sets an engine of another library's up like ours; it must be on the same database."""
        if self.dialect == "sqlite":
            prepare_sqlite(engine)
        url = parse_url(self.url)
        if url.drivername == EMBEDDED:
            from hpo.study.embedded import cluster_at

            cluster_at(Path(url.database or "")).attend(engine)
        # Connections that were made before know nothing of it.
        engine.dispose()

    def close(self) -> None:
        self.engine.dispose()

    def _patiently(self, attempt: Callable[[], T], patience: float) -> T:
        begun = time.monotonic()
        try:
            # Nearly always the only try, so it goes without the machinery of retries.
            return attempt()
        except DBAPIError as error:
            failed: list[DBAPIError] = [error]
        patience -= time.monotonic() - begun

        def again() -> T:
            if failed:
                raise failed.pop()
            return attempt()

        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            stop=stop_any(stop_before_delay(patience), stop_when_event_set(self._hurry)),
            sleep=sleep_using_event(self._hurry),
            reraise=True,
        )
        try:
            return retrying(again)
        except DBAPIError as error:
            if not _is_trouble(error):
                raise
            # The driver's own text may repeat the URL, so only its first line is shown, masked.
            raise StorageError(self._explain(error)) from None

    def _explain(self, error: DBAPIError) -> str:
        reason = next(iter(_words(error).strip().splitlines()), type(error.orig).__name__)
        password = self.engine.url.password or ""
        for secret in filter(None, (password, quote(password, safe=""))):
            reason = reason.replace(secret, "***")
        where = masked(self.url)
        state = "is out of reach" if is_transient(error) else "can't be used"
        return (
            f"the database {where} {state}: {reason}; "
            "check that it runs and that --storage (or HPO_STORAGE) is right"
        )


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed a little later."""
    if not isinstance(error, DBAPIError):
        return False
    code = _mysql_code(error)
    if code is not None:
        return error.connection_invalidated or code in TRANSIENT
    if getattr(error.orig, "sqlstate", None) in _PASSING:
        return True
    text = str(error.orig).lower()
    if any(words in text for words in _PERMANENT):
        return False
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def _mysql_code(error: DBAPIError) -> int | None:
    """The number that MySQL's drivers put before the words; other drivers have words alone."""
    first = next(iter(error.orig.args), None) if error.orig is not None else None
    return first if isinstance(first, int) else None


def _words(error: DBAPIError) -> str:
    if error.orig is None:
        return str(error)
    return str(error.orig if _mysql_code(error) is None else error.orig.args[-1])


def _is_trouble(error: DBAPIError) -> bool:
    """Whether the database is to blame, and not what it was asked."""
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return True
    if is_transient(error):
        return True
    if isinstance(error, ProgrammingError):
        return "permission denied" in str(error.orig).lower()
    # No subclass: "file is not a database".
    return type(error) is DatabaseError


def make_engine(url: str, *, create: bool = False) -> sa.Engine:
    """An engine for `url`, with connections set up as its kind of database needs them."""
    parsed = parse_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite_engine(parsed, create)
    if backend == EMBEDDED:
        return _embedded_engine(Path(parsed.database or ""), create)
    try:
        if backend == "postgresql":
            return _postgresql_engine(parsed)
        return make_mysql_engine(parsed)
    except ImportError as error:
        raise UsageError(
            f"the driver for {backend} is not installed: {error.name}; "
            f"install it with pip install {_EXTRAS.get(backend, error.name)}"
        ) from None
    except ArgumentError:
        raise UsageError(
            f"the storage names an unknown driver: {parsed.drivername}; write {backend}:// only"
        ) from None


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
        if getattr(context.original_exception, "sqlstate", None) in _PASSING:
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
    if create and not path.absolute().parent.is_dir():
        raise UsageError(f"the folder of the database file {path} does not exist; create it first")
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
