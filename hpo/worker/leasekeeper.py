"""Keeps a worker's lease alive from a thread of its own, while the main thread trains."""

from __future__ import annotations

import contextlib
import threading

from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import LeaseLostError, StorageError
from hpo.study import workers
from hpo.study.leases import Lease, Slots


class LeaseKeeper:
    """Renews the held lease three times in its lifetime and tells when it is lost.

    A database that is away is no reason to stop: the lease may run out meanwhile, but as long as
    nobody takes the slot over, the next renewal or write succeeds.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held: Lease | None = None
        self._lock = threading.Lock()
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="lease")
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether the lease that is held has become another worker's."""
        return self._lost.is_set()

    @property
    def study_stopped(self) -> bool:
        """Whether the study is stopped, as far as the last look went."""
        return self._stopped.is_set()

    def hold(self, lease: Lease | None) -> None:
        """The lease to keep alive from now on; None for none."""
        with self._lock:
            self._held = lease
            self._lost.clear()

    def close(self) -> None:
        self._closed.set()
        # Not for ever: it may be waiting for a database that is away.
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._closed.wait(self._slots.lease_seconds / 3):
            with self._lock:
                lease = self._held
            # Whatever the database says: without this thread leases would run out unnoticed. The
            # worker will hear it with its next write.
            with contextlib.suppress(StorageError, SQLAlchemyError):
                self._renew(lease)

    def _renew(self, lease: Lease | None) -> None:
        workers.seen(self._slots.database, self._slots.worker)
        if self._slots.study_runs():
            self._stopped.clear()
        else:
            self._stopped.set()
        if lease is None:
            return
        try:
            self._slots.renew(lease)
        except LeaseLostError:
            with self._lock:
                if self._held is lease:
                    self._lost.set()
