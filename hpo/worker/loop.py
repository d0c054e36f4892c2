"""The worker: leases slots, asks the sampler, drives a trainer, tells the study. No Keras here."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from hpo.artifacts import Place, check_writable
from hpo.errors import (
    ArtifactsError,
    LeaseLostError,
    StorageError,
    StudyMismatchError,
    UsageError,
)
from hpo.spec import StudySpec
from hpo.spec.models import PythonSource
from hpo.study import workers
from hpo.study.database import Database
from hpo.study.leases import Lease, NoSlot, Slots
from hpo.study.storage import StudyStorage
from hpo.study.studies import Facts, StudyRecord
from hpo.worker import messages as m
from hpo.worker.attempt import Attempt, Step
from hpo.worker.leasekeeper import LeaseKeeper
from hpo.worker.paths import StudyPaths
from hpo.worker.trainers import Trainer, TrainerDiedError, Trainers

logger = logging.getLogger(__name__)

# A trainer that has grown by this much since its first trial is replaced: Keras leaks.
_GROWTH_BYTES = 1 << 30
_POLL_SECONDS = 0.5
# No trial is to blame for trainers that die before one begins, and counts their deaths.
_MOST_DEATHS = 3
# How long a worker that leaves because of a full disk waits for the database.
_HURRIED_SECONDS = 5.0


@dataclass(frozen=True)
class WorkerOptions:
    """How one worker works.

    Attributes:
        project: Folder that the builder and data paths are resolved from.
        artifacts: Place of checkpoints and files of trials, shared by all workers.
        lease_seconds: After so long without a sign of life a worker's trial is taken over.
        threads: Cores for its trainer.
    """

    project: Path
    artifacts: Place
    lease_seconds: float = 30.0
    threads: int = 1


class Worker:
    """Runs trials of one study until there are none left, or until it is told to stop.

    Args:
        trainers: Where its trainer comes from.
        name: Unlike any other worker's; made up when left out.
        stop: Set from outside (a signal handler) to leave: the trial in flight goes back to its
            slot and goes on from its last epoch elsewhere.
    """

    def __init__(
        self,
        database: Database,
        record: StudyRecord,
        options: WorkerOptions,
        trainers: Trainers,
        stop: threading.Event,
        name: str | None = None,
    ) -> None:
        self.name = name or workers.worker_name()
        self._database = database
        self._record = record
        self._spec: StudySpec = record.spec
        self._options = options
        self._trainers = trainers
        self._stop = stop
        self._paths = StudyPaths(options.artifacts, record.name, options.project, record.mark)
        self._slots = Slots(database, record.study_id, self.name, options.lease_seconds)
        self._storage = StudyStorage(database, record)
        self._trainer: Trainer | None = None
        self._base_memory = 0
        self._claimed = False
        # Trainers in a row that were ready and died before their trial began.
        self._idle_deaths = 0

    def run(self) -> int:
        """Works; the number of trials that this worker has ended.

        Raises:
            StudyMismatchError: Data, builder or library versions differ from the study's.
            TrainerDiedError: Trainers die before they have begun with a trial.
            StorageError: The database stayed away for longer than its patience.
            ArtifactsError: Checkpoints or pictures can't be written; no trial is to blame.
        """
        check_writable(self._options.artifacts)
        workers.register(self._database, self._record.study_id, self.name)
        keeper = LeaseKeeper(self._slots)
        try:
            return self._work(keeper)
        except UsageError:
            if not self._claimed:
                # It is none of the study's workers.
                with contextlib.suppress(StorageError):
                    workers.remove(self._database, self.name)
            raise
        except StorageError:
            # Told to leave, nobody waits for a database that is away.
            if not self._stop.is_set():
                raise
            return 0
        except ArtifactsError:
            # The database may lie on the same full disk: no more waiting for it.
            self._stop.set()
            raise
        finally:
            keeper.close()
            self._drop_trainer()
            self._paths.remove_empty_log(self.name)
            with contextlib.suppress(StorageError):
                workers.left(self._database, self.name)

    def _work(self, keeper: LeaseKeeper) -> int:
        ended = 0
        while not self._stop.is_set() and (lease := self._claim()) is not None:
            if lease is NoSlot.WAIT:
                # Jitter: idle workers should not ask in step.
                self._stop.wait(_POLL_SECONDS * random.uniform(0.5, 1.5))
            elif isinstance(lease, NoSlot):
                logger.info("no more work: %s", lease.value)
                # What workers that were killed or suspended have left.
                self._tidy()
                break
            else:
                self._claimed = True
                ended += self._run_lease(lease, keeper)
        return ended

    def _claim(self) -> Lease | NoSlot | None:
        """A lease, with a trainer that is ready for it; None when told to stop meanwhile."""
        if self._trainer is None and not self._slots.study_runs():
            # A new trainer would open the data only to be told so.
            return NoSlot.STOPPED
        if self._ready_trainer() is None:
            return None
        return self._slots.claim(self._spec.search.max_consecutive_failures)

    def _ready_trainer(self) -> Trainer | None:
        """The trainer, started and compared with the study; None when told to stop meanwhile.

        Raises:
            TrainerDiedError: One after the other has died while it prepared.
        """
        if self._trainer is not None and self._is_spent(self._trainer):
            self._drop_trainer()
        deaths = 0
        while self._trainer is None:
            self._trainer = self._trainers.start(self._paths.log(self.name))
            try:
                ready = self._prepare(self._trainer)
            except TrainerDiedError as error:
                self._drop_trainer()
                deaths += 1
                logger.warning("%s while it prepared", error)
                if deaths == _MOST_DEATHS:
                    raise
                continue
            if ready is None:
                return None
            self._check_facts(ready)
            self._base_memory = 0
        return self._trainer

    def _prepare(self, trainer: Trainer) -> m.Ready | None:
        request = m.Prepare(
            self._record.spec_json,
            self._options.project,
            self._options.threads,
            self._trainers.shared,
            self._record.facts.data,
        )
        ready: m.Ready | None = trainer.request(request, lambda: not self._stop.is_set())
        return ready

    def _check_facts(self, ready: m.Ready) -> None:
        from importlib.metadata import version

        facts = self._record.facts
        here = Facts(
            data=ready.data,
            builder=ready.builder,
            optuna=version("optuna").partition(".")[0],
            keras=ready.keras,
            signature=facts.signature,
        )
        found = facts.differences(here)
        if found:
            advice = (
                "Use the same data, builder and library versions as the study was created with."
            )
            source = self._spec.data.source
            if here.data != facts.data and isinstance(source, PythonSource):
                advice += (
                    f" {source.load} must return the same rows each time it is called: if it draws "
                    "at random, with a fixed seed, as numpy.random.default_rng(0) does."
                )
            raise StudyMismatchError(
                f"this worker does not fit the study {self._record.name!r}:\n  "
                + "\n  ".join(found)
                + f"\n{advice}"
            )

    def _is_spent(self, trainer: Trainer) -> bool:
        """Whether it has grown, or died while it had nothing to do; no trial is to blame."""
        if trainer.ended:
            logger.warning("the trainer has ended between two trials; another one takes its place")
            return True
        memory = trainer.memory()
        self._base_memory = self._base_memory or memory
        return memory > self._base_memory + _GROWTH_BYTES

    def _drop_trainer(self) -> None:
        if self._trainer is not None:
            self._trainer.kill()
            self._trainer = None

    def _run_lease(self, lease: Lease, keeper: LeaseKeeper) -> int:
        """Runs the leased trial; 1 when it ended, 0 when it goes on elsewhere or again."""
        keeper.hold(lease)
        try:
            attempt = self._begin(lease)
            return 0 if attempt is None else self._train(attempt, lease, keeper)
        except ArtifactsError:
            # The trial is not to blame: it waits where it is, and nothing is counted.
            self._drop_trainer()
            self._release(lease, _HURRIED_SECONDS)
            raise
        except LeaseLostError as error:
            logger.warning("trial %d: %s", lease.number, error)
            self._drop_trainer()
            return 0
        finally:
            keeper.hold(None)
            self._storage.drop()

    def _begin(self, lease: Lease) -> Attempt | None:
        """Hands the trial to the trainer; None when that had died before, and the trial waits."""
        trainer = self._trainer
        assert trainer is not None
        try:
            attempt = Attempt(
                lease, self._spec, self._record, self._slots, self._storage, self._paths, trainer
            )
        except TrainerDiedError as error:
            logger.warning("%s before trial %d began", error, lease.number)
            self._drop_trainer()
            self._release(lease)
            self._idle_deaths += 1
            if self._idle_deaths == _MOST_DEATHS:
                raise
            return None
        self._idle_deaths = 0
        return attempt

    def _train(self, attempt: Attempt, lease: Lease, keeper: LeaseKeeper) -> int:
        started = time.monotonic()
        limit = self._spec.search.trial_timeout
        try:
            while not (self._stop.is_set() or keeper.lost or keeper.study_stopped):
                step = attempt.step()
                if step is Step.ENDED:
                    self._tidy(attempt)
                    return 1
                if step is Step.GIVEN_BACK:
                    return 0
                if limit is not None and time.monotonic() - started > limit:
                    words = f"the time limit of {limit:g} s for one trial was reached"
                    return self._crashed(lease, words)
            return self._leave(lease, keeper)
        except TrainerDiedError as error:
            return self._crashed(lease, str(error))

    def _leave(self, lease: Lease, keeper: LeaseKeeper) -> int:
        self._drop_trainer()
        if keeper.lost:
            logger.warning("trial %d: another worker has taken it over", lease.number)
        else:
            self._release(lease)
        return 0

    def _release(self, lease: Lease, patience: float | None = None) -> None:
        try:
            self._slots.release(lease, patience)
            logger.info("trial %d: given back", lease.number)
        except StorageError:
            logger.warning("trial %d: not given back, its lease will run out", lease.number)

    def _crashed(self, lease: Lease, reason: str) -> int:
        """The trainer died or hung: another attempt, or the trial has failed."""
        self._drop_trainer()
        logger.warning("trial %d: %s", lease.number, reason)
        if self._slots.record_failure(lease, "crashes", self._spec.search.retries.crash):
            return 0
        reason = f"crash: {reason}"
        self._storage.fail(self._slots, reason)
        self._slots.stop_after_equal_failures(self._spec.search.max_consecutive_failures, reason)
        self._tidy()
        return 1

    def _tidy(self, ended: Attempt | None = None) -> None:
        try:
            if ended is not None:
                ended.tidy()
            self._paths.keep_best(self._database, self._record, self._slots)
        except (StorageError, ArtifactsError) as error:
            logger.warning("old checkpoints were not removed: %s", error)
