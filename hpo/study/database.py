"""The SQL database: one engine, short transactions, and patience while it is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_any,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from hpo.study.engines import make_engine, prepare_sqlite
from hpo.study.outage import Outage
from hpo.study.trouble import explained, is_transient
from hpo.study.urls import EMBEDDED, masked, parse_url

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

# Of one statement, which commits by itself.
_ALONE: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}


class Database:
    """Transactions on one database; retries with backoff while the database is away.

    Thread-safe. A unit of work may run more than once, so it must hold no state of its own.
    A read never creates anything: opening a SQLite file or an embedded database that is not there
    raises StudyNotFoundError unless `create` is set.

    Args:
        url: A SQLAlchemy URL with its password, or `embedded:FOLDER`.
        create: Create a SQLite file or an embedded database that does not exist.
        patience: Seconds that one transaction keeps trying before StorageError is raised. What
            takes longer than a moment is told in the log.
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
        self._outage = Outage(url, patience)
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
        with self._outage:
            try:
                # Nearly always the only try, so it goes without the machinery of retries.
                return attempt()
            except DBAPIError as error:
                return self._retried(attempt, error, begun, patience)

    def _retried(
        self, attempt: Callable[[], T], error: DBAPIError, begun: float, patience: float
    ) -> T:
        failed = [error]

        def again() -> T:
            if failed:
                raise failed.pop()
            return attempt()

        def tell(state: RetryCallState) -> None:
            assert state.outcome is not None
            passing = state.outcome.exception()
            assert isinstance(passing, DBAPIError)
            self._outage.goes_on(begun, passing)

        left = patience - (time.monotonic() - begun)
        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            after=tell,
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            stop=stop_any(stop_before_delay(left), stop_when_event_set(self._hurry)),
            sleep=sleep_using_event(self._hurry),
            reraise=True,
        )
        try:
            return retrying(again)
        except DBAPIError as error:
            told = explained(error, self.url)
            if told is None:
                raise
            raise told from None
