"""`hpo run`: submit, work with local workers, export; go on where it stopped the last time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hpo.artifacts import check_writable, open_artifacts
from hpo.errors import StorageError, StudyStoppedError
from hpo.launch.local import LocalWorkers, WorkersFailedError
from hpo.study.database import Database
from hpo.study.leases import release_worker
from hpo.study.snapshot import Snapshot, take_snapshot
from hpo.study.studies import StudyRecord
from hpo.worker.signals import Interruption

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
# A look at a study of 100,000 trials takes a tenth of a second of a core, of a PostgreSQL on this
# machine perhaps: the workers shall have it.
_MOST_SHARE = 0.03
# Also after a look that had to wait for a database.
_MOST_PAUSE_SECONDS = 10.0
# Workers may have been told to leave, or have met a stop that was taken back at once. Started so
# often without a trial that ends meanwhile, they have another reason.
_MOST_STARTS = 5


@dataclass(frozen=True)
class RunEnd:
    """Where a run left the study: finished, at its time limit, or interrupted."""

    snapshot: Snapshot
    interrupted: bool


class Workers(Protocol):
    """Workers that were started here."""

    def tend(self, finished: int) -> bool:
        """Looks after them; False once all have left. Raises what kept them from working.

        `finished` is the number of trials of the study that have ended by now.
        """

    def stop(self) -> None:
        """Has them give their trials back and leave."""


def work_through(
    database: Database,
    record: StudyRecord,
    local: LocalWorkers,
    interruption: Interruption,
    show: Callable[[Snapshot], None],
) -> RunEnd:
    """Has local workers work until the study is finished, out of time, or interrupted.

    Raises:
        StudyStoppedError: The study is stopped; says why and how to go on.
        WorkersFailedError: The workers can't work.
        ArtifactsError: Checkpoints can't be written; no worker has begun.
    """

    def start() -> Workers:
        # Once, instead of in the words of every worker.
        check_writable(open_artifacts(local.options.artifacts))
        local.begin(lambda name: release_worker(database, record.study_id, name))
        return local

    return attend(database, record, start, interruption, show)


def attend(
    database: Database,
    record: StudyRecord,
    start: Callable[[], Workers],
    interruption: Interruption,
    show: Callable[[Snapshot], None],
) -> RunEnd:
    """Starts workers, if there is work, and stays until the study is finished or interrupted.

    It may also have come to its time limit. When all have left and there is still work, others are
    started.

    Raises:
        StudyStoppedError: The study is stopped; says why and how to go on.
        WorkersFailedError: The workers can't work, or leave again and again.
    """
    snapshot, starts = take_snapshot(database, record), 0
    while snapshot.state == "running" and not interruption.stop.is_set():
        before = snapshot.finished
        snapshot = _tend(database, record, snapshot, start(), interruption, show)
        starts = 0 if snapshot.finished > before else starts + 1
        if snapshot.state == "running" and not interruption.stop.is_set():
            _check_starts(snapshot, starts)
    check_not_stopped(snapshot)
    return RunEnd(snapshot, interruption.stop.is_set() and snapshot.state == "running")


def check_not_stopped(snapshot: Snapshot) -> None:
    """Raises StudyStoppedError, which says why and how to go on; a time limit is no error."""
    if snapshot.state == "stopped" and not snapshot.timed_out:
        raise StudyStoppedError(
            f"the study {snapshot.name!r} is stopped: {snapshot.reason}; {_count(snapshot)}. "
            f"Go on with: hpo resume {snapshot.name}"
        )


def time_limit_words(snapshot: Snapshot) -> str:
    """Of a study that its time limit has stopped: how far it came and how to go on."""
    return (
        f"the time limit of the study {snapshot.name!r} has passed: {_count(snapshot)}. "
        f"For more, go on with: hpo resume {snapshot.name}"
    )


def _count(snapshot: Snapshot) -> str:
    return f"{snapshot.finished} of {snapshot.trials} trials are finished"


def _check_starts(snapshot: Snapshot, starts: int) -> None:
    where = _count(snapshot)
    if starts == _MOST_STARTS:
        raise WorkersFailedError(
            f"the workers leave before the study {snapshot.name!r} is finished, and have been "
            f"started {starts} times without a trial that has ended; {where}. Find out who tells "
            "them to leave; the same command goes on from here."
        )
    logger.warning("all workers have left, and %s: others are started", where)


def _tend(
    database: Database,
    record: StudyRecord,
    snapshot: Snapshot,
    workers: Workers,
    interruption: Interruption,
    show: Callable[[Snapshot], None],
) -> Snapshot:
    try:
        try:
            next_look = 0.0
            while workers.tend(snapshot.finished) and not interruption.stop.is_set():
                if time.monotonic() >= next_look:
                    begun = time.monotonic()
                    snapshot = take_snapshot(database, record)
                    show(snapshot)
                    now = time.monotonic()
                    next_look = now + min((now - begun) / _MOST_SHARE, _MOST_PAUSE_SECONDS)
                interruption.stop.wait(_LOOK_SECONDS)
        finally:
            workers.stop()
        snapshot = take_snapshot(database, record)
    except StorageError:
        # Told to leave, nobody waits for a database that is away: the last look has to do.
        if not interruption.stop.is_set():
            raise
    show(snapshot)
    return snapshot
