"""What a person is told while the database is away."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.exc import DBAPIError

from hpo.errors import StorageError
from hpo.study.trouble import reason_of
from hpo.study.urls import masked

logger = logging.getLogger(__name__)

# A connection that was cut and made again is nothing to tell of.
_QUIET_SECONDS = 2.0
_AGAIN_SECONDS = 60.0


class Outage:
    """Logs that the database is away, once a minute while it is, and that it is back. Thread-safe.

    A context manager around what is asked of the database. An answer ends the outage, be it what
    was asked for or an error other than StorageError.

    Args:
        url: Of the database.
        patience: Seconds that it is waited for.
    """

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._lock = threading.Lock()
        self._since: float | None = None
        self._failed: float | None = None
        self._told: float | None = None

    def goes_on(self, begun: float, error: DBAPIError) -> None:
        """An attempt has failed that was begun then, on the clock of `time.monotonic`."""
        now = time.monotonic()
        with self._lock:
            if self._failed is None or now - self._failed > _AGAIN_SECONDS:
                # Nobody has asked for a while: it may have been back in between.
                self._since = self._told = None
            self._failed = now
            self._since = begun if self._since is None else self._since
            lasted = now - self._since
            told_of = self._told is not None and now - self._told < _AGAIN_SECONDS
            if lasted < _QUIET_SECONDS or told_of:
                return
            self._told = now
        logger.warning(
            "the database %s has been away for %.0f s: %s; it is waited for, up to %g s",
            masked(self._url),
            lasted,
            reason_of(error, self._url),
            self._patience,
        )

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Nearly always, so it goes without the lock.
        if self._since is None:
            return
        answered = kind is None or (
            issubclass(kind, Exception) and not issubclass(kind, StorageError)
        )
        if answered:
            self._end()

    def _end(self) -> None:
        with self._lock:
            told = self._told is not None
            self._since = self._told = None
        if told:
            logger.warning("the database %s is back", masked(self._url))
