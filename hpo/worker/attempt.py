"""One attempt at one trial: the worker's half of the conversation with the trainer."""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import platform
from typing import Any

import optuna

from hpo.artifacts import Place, list_folder, remove_file, remove_folder
from hpo.errors import BuilderError, StorageError
from hpo.spec import StudySpec
from hpo.study.leases import Lease, Outcome, Slots
from hpo.study.storage import StudyStorage, make_study
from hpo.study.strategies import make_pruner, make_sampler, trial_seed
from hpo.study.studies import StudyRecord
from hpo.study.suggest import suggest
from hpo.worker import messages as m
from hpo.worker.paths import StudyPaths
from hpo.worker.trainers import Trainer, TrainerDiedError

logger = logging.getLogger(__name__)

_MESSAGE_SECONDS = 0.2
# How long a report may wait for the database before training goes on without an answer.
_REPORT_PATIENCE = 1.0
# How the exceptions of Python, NumPy and TensorFlow are called.
_OUT_OF_MEMORY = ("MemoryError", "ResourceExhaustedError")


# The system attribute of a trial that is to end, in case its worker dies before it has.
_PRUNED = "hpo:pruned"


class Step(enum.Enum):
    """Where an attempt stands after a message."""

    GOES_ON = "training goes on"
    ENDED = "the trial has ended"
    GIVEN_BACK = "the trial will be tried again"


class Attempt:
    """Hands the trial to the trainer and answers its messages, one with each `step`."""

    def __init__(
        self,
        lease: Lease,
        spec: StudySpec,
        record: StudyRecord,
        slots: Slots,
        storage: StudyStorage,
        paths: StudyPaths,
        trainer: Trainer,
    ) -> None:
        self._lease = lease
        self._spec = spec
        self._slots = slots
        self._storage = storage
        self._paths = paths
        self._trainer = trainer
        self._folder = folder = paths.trial(lease.number)
        self._kept: Place | None = None
        # Whether the last report has met a database that is away.
        self._unheard = False
        if record.mark is None and not lease.resumed:
            # Of another study of this name, which could have left it there.
            remove_folder(folder)
        stored = storage.hold(lease)
        self._reported = max(stored.intermediate_values, default=0)
        self._study = make_study(storage, record, make_sampler(spec, lease.slot), make_pruner(spec))
        self._trial = optuna.Trial(self._study, lease.trial_id)
        trainer.send(
            m.TrialTask(
                number=lease.number,
                seed=trial_seed(spec.training.seed, lease.slot),
                token=lease.token,
                folder=folder,
                reported=self._reported,
                pruned=_PRUNED in stored.system_attrs,
            )
        )

    def step(self) -> Step:
        """Waits a moment for a message and answers it.

        Raises:
            TrainerDiedError: The trainer is gone, or of no more use.
            LeaseLostError: Another worker owns the trial.
            ArtifactsError: Checkpoints or pictures can't be written or read.
        """
        message = self._trainer.receive(_MESSAGE_SECONDS)
        if isinstance(message, m.Suggest):
            self._trainer.send(self._suggest(message))
        elif isinstance(message, m.Report):
            self._trainer.send(m.Answer(self._should_prune(message)))
        elif isinstance(message, m.Begun):
            self._begin(message)
        elif isinstance(message, m.Finished):
            self._finish(message)
            return Step.ENDED
        elif isinstance(message, m.Failed):
            return self._fail(message)
        elif isinstance(message, m.Refused):
            raise message.as_error()
        return Step.GOES_ON

    def tidy(self) -> None:
        """Removes the checkpoints of the ended trial but the best one.

        Raises:
            ArtifactsError: They can't be removed.
        """
        for path in list_folder(self._folder):
            if path != self._kept:
                remove_file(path)

    def _suggest(self, asked: m.Suggest) -> m.Suggested | m.Rejected:
        try:
            value = suggest(self._trial, asked.name, asked.parameter)
        except (BuilderError, ValueError) as error:
            # ValueError: Optuna's word for a range that it can't use.
            return m.Rejected(str(error))
        # Brute force would try a combination again that it does not see. And of a trial that kills
        # its trainer or worker before it begins, the values should be known.
        if self._spec.search.sampler.type == "brute_force" or self._lease.resumed:
            with contextlib.suppress(StorageError):
                self._storage.flush(self._slots, _REPORT_PATIENCE)
        return m.Suggested(value)

    def _begin(self, begun: m.Begun) -> None:
        self._trial.set_user_attr("model_parameters", begun.parameters)
        self._trial.set_user_attr("device", begun.device)
        self._trial.set_user_attr("host", platform.node())
        if self._lease.resumed:
            before = self._trial.user_attrs.get("resumed_at", [])
            self._trial.set_user_attr("resumed_at", [*before, begun.epoch])
        self._storage.flush(self._slots)

    def _should_prune(self, report: m.Report) -> bool:
        """Writes the report; while the database is away it is kept and training goes on.

        Unless it was decided before the database went away that the trial is pruned.
        """
        trial_id, prune = self._lease.trial_id, False
        self._storage.read_patience = _REPORT_PATIENCE
        try:
            if report.epoch > self._reported:
                self._trial.report(report.value, report.epoch)
                prune = bool(self._trial.should_prune()) and not self._leads(self._best_value())
            else:
                # Trained again, as its checkpoint was lost. What is reported is what is saved;
                # Optuna's trial keeps the first.
                self._storage.set_trial_intermediate_value(trial_id, report.epoch, report.value)
            if prune:
                self._storage.set_trial_system_attr(trial_id, _PRUNED, report.epoch)
            self._storage.flush(self._slots, _REPORT_PATIENCE)
            self._unheard = False
        except StorageError:
            # Why is told by the database, once for all trials.
            if not self._unheard:
                words = "is pruned" if prune else "goes on"
                logger.warning(
                    "trial %d %s without the database; its reports are kept",
                    self._lease.number,
                    words,
                )
            self._unheard = True
        finally:
            self._storage.read_patience = None
        return prune

    def _finish(self, finished: m.Finished) -> None:
        self._trial.set_user_attr("epochs", finished.epochs)
        self._trial.set_user_attr("seconds", round(finished.seconds, 3))
        if finished.checkpoint is not None:
            self._trial.set_user_attr("best_epoch", finished.best_epoch)
            self._trial.set_user_attr("checkpoint", self._paths.relative(finished.checkpoint))
        self._paths.attach(self._trial, finished.files)
        if finished.diverged is None:
            self._end(Outcome("PRUNED" if finished.pruned else "COMPLETE", finished.value))
        else:
            self._end_diverged(finished)
        self._kept = finished.checkpoint

    def _end_diverged(self, finished: m.Finished) -> None:
        reason = self._note_reason("diverged", str(finished.diverged))
        # Not failed: samplers learn from pruned trials and pass over failed ones.
        state = "COMPLETE" if self._leads(finished.value) else "PRUNED"
        failure = "diverged" if finished.value is None else None
        self._end(Outcome(state, finished.value, failure), reason)

    def _note_reason(self, kind: str, words: str) -> str:
        reason = f"{kind}: {words}"
        logger.warning("trial %d: %s", self._lease.number, reason)
        self._trial.set_user_attr("reason", reason)
        return reason

    def _fail(self, failed: m.Failed) -> Step:
        reason = self._note_reason("exception", failed.message)
        self._trial.set_user_attr("epochs", failed.epochs)
        self._trial.set_user_attr("traceback", failed.traceback)
        kind = failed.message.partition(":")[0]
        if kind.endswith(_OUT_OF_MEMORY):
            # What it holds, or the limit it ran into, would spoil the next trial too.
            raise TrainerDiedError(f"the trainer ran out of memory ({kind})")
        allowed = self._spec.search.retries.exception
        if self._slots.record_failure(self._lease, "exceptions", allowed):
            return Step.GIVEN_BACK
        self._end(Outcome("FAIL", None, kind), reason)
        return Step.ENDED

    def _end(self, outcome: Outcome, reason: str = "") -> None:
        values = None if outcome.value is None else [outcome.value]
        state = optuna.trial.TrialState[outcome.state]
        frozen = self._storage.get_trial(self._lease.trial_id)
        self._study.sampler.after_trial(self._study, frozen, state, values)
        self._storage.finish(self._slots, outcome)
        if outcome.failure is not None:
            limit = self._spec.search.max_consecutive_failures
            self._slots.stop_after_equal_failures(limit, reason)
        logger.info("trial %d: %s, %s", self._lease.number, outcome.state, _shown(outcome.value))

    def _leads(self, value: float | None) -> bool:
        """Whether with this value it is the best of all that are complete or run.

        Such a trial is never pruned. Optuna looks for the best trial among the complete ones. So
        its best trial is ours. Reports only ever raise what a trial has reached, so two trials that
        look at the same time never give each other up.
        """
        if value is None:
            return False
        sign = 1 if self._spec.objective.direction == "maximize" else -1
        complete = self._storage.history.best_complete()
        if complete is not None and sign * complete[1] >= sign * value:
            return False
        running = self._storage.history.best_running(self._lease.trial_id)
        if running is None:
            return True
        number, reached = running
        # Of equal ones the first leads.
        return (sign * value, -self._lease.number) > (sign * reached, -number)

    def _best_value(self) -> float | None:
        """The best epoch's value so far."""
        reported = self._storage.get_trial(self._lease.trial_id).intermediate_values.values()
        values = [value for value in reported if math.isfinite(value)]
        if not values:
            return None
        return max(values) if self._spec.objective.direction == "maximize" else min(values)


def _shown(value: Any) -> str:
    return "no value" if value is None else f"value {value:.6g}"
