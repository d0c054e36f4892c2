"""Optuna's storage interface for the worker that holds a lease.

Samplers and pruners are Optuna's own and read the study through this class. Finished trials are
read once and kept, and of those that TPE learns from no more than it looks at. The leased trial
lives in memory: what the sampler, the pruner and the trainer add to it is gathered and written by
`flush`, or with the outcome by `finish`, in one transaction under the lease.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Sequence
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
)
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import BuilderError
from hpo.study import tables as t
from hpo.study.database import Database, T, Work
from hpo.study.history import History
from hpo.study.leases import Lease, Outcome, Slots
from hpo.study.reading import (
    new_trial,
    read_first_distributions,
    read_new_trial,
    read_trials,
)
from hpo.study.studies import StudyRecord
from hpo.study.trials import AllTrials, WindowTrials
from hpo.study.writes import TrialWrites, upsert


class StudyStorage(BaseStorage):
    """One study, read by everybody and written under one lease at a time.

    Not thread-safe: it belongs to the worker's main thread.
    """

    def __init__(self, database: Database, record: StudyRecord) -> None:
        self._database = database
        self._record = record
        self._trials = AllTrials(database, record.study_id)
        self._window: WindowTrials | None = None
        self._history = History(self._read, record)
        self._best: FrozenTrial | None = None
        # Seconds that a read waits for a database that is away; None: as long as the database.
        self.read_patience: float | None = None
        self._lease: Lease | None = None
        self._trial: FrozenTrial | None = None
        self._writes = TrialWrites()
        # The first distribution that the study has of each parameter.
        self._distributions: dict[str, BaseDistribution] = {}

    def hold(self, lease: Lease) -> FrozenTrial:
        """Makes the lease's trial the one that may be written; its copy in memory."""
        self._lease = lease
        self._writes = TrialWrites()
        if lease.resumed:
            self._trial = self._trials.load(lease.trial_id)
        elif lease.began is not None:
            # The claim has just created it: there is nothing to read.
            self._trial = new_trial(lease.trial_id, lease.number, lease.began)
        else:
            self._trial = self._database.read(lambda c: read_new_trial(c, lease.trial_id))
        return self._trial

    def drop(self) -> None:
        """Forgets the lease and what was gathered under it."""
        self._lease, self._trial, self._writes = None, None, TrialWrites()

    @property
    def unwritten(self) -> bool:
        return bool(self._writes)

    def flush(self, slots: Slots, patience: float | None = None) -> None:
        """Writes what was gathered. On StorageError it is kept for the next time."""
        if self._writes:
            self._write(slots, None, patience)

    def finish(self, slots: Slots, outcome: Outcome) -> None:
        """Writes what was gathered and the outcome, and ends trial and slot."""
        trial, told = self._trial, outcome.as_told()
        if self._write(slots, outcome, None) and trial is not None:
            trial.state = TrialState[told.state]
            trial.values = None if told.value is None else [told.value]
            # What this worker knows, it need not read.
            if self._window is not None:
                self._window.tell(trial)
            self._history.tell(trial)
        self.drop()

    def fail(self, slots: Slots, failure: str) -> None:
        """Ends trial and slot as failed; the reason becomes an attribute of the trial."""
        assert self._trial is not None
        self.set_trial_user_attr(self._trial._trial_id, "reason", failure)
        self.finish(slots, Outcome("FAIL", None, failure))

    def _write(self, slots: Slots, outcome: Outcome | None, patience: float | None) -> bool:
        assert self._lease is not None
        ended = slots.write(self._lease, self._writes, outcome, patience)
        self._writes = TrialWrites()
        return ended

    def _held(self, trial_id: int) -> FrozenTrial:
        if self._trial is None or self._trial._trial_id != trial_id:
            raise RuntimeError(f"trial {trial_id} is not the one that this worker has leased")
        return self._trial

    # Writes of the leased trial: into memory now, into the database with flush or finish.

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        trial = self._held(trial_id)
        self._check_compatible(param_name, distribution)
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution
        self._writes.params.append(
            {
                "param_name": param_name,
                "param_value": param_value_internal,
                "distribution_json": distribution_to_json(distribution),
            }
        )

    def _check_compatible(self, name: str, distribution: BaseDistribution) -> None:
        """Raises BuilderError when other trials have the parameter with other choices or kind."""
        first = self._first_distribution(name)
        if first is None:
            return
        try:
            check_distribution_compatibility(first, distribution)
        except ValueError:
            raise BuilderError(
                f"the parameter {name!r} was {first} in an earlier trial of the study, now it is "
                f"{distribution}; kind and choices must stay the same from trial to trial: "
                "give the other one another name"
            ) from None

    def _first_distribution(self, name: str) -> BaseDistribution | None:
        if name not in self._distributions:
            study = self._record.study_id
            if not self._distributions:
                self._distributions = self._read(lambda c: read_first_distributions(c, study))
            if name not in self._distributions:
                found = self._read(lambda c: read_first_distributions(c, study, name))
                self._distributions |= found
        return self._distributions.get(name)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._held(trial_id).intermediate_values[step] = intermediate_value
        self._writes.values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        stored = _as_stored(value)
        self._held(trial_id).user_attrs[key] = stored
        self._writes.user_attrs[key] = stored

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        stored = _as_stored(value)
        self._held(trial_id).system_attrs[key] = stored
        self._writes.system_attrs[key] = stored

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        raise RuntimeError("a trial ends with finish(), under its lease")

    # Reads of trials.

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if self._trial is not None and self._trial._trial_id == trial_id:
            # Optuna's Trial writes into what it gets.
            return copy.deepcopy(self._trial)
        return self._trials.load(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        # Not the one that is written to: Optuna's pruners write while they look.
        own = copy.deepcopy(self._trial)
        trials = [
            own if own is not None and own._trial_id == trial._trial_id else trial
            for trial in self._trials.refreshed(states, self.read_patience)
        ]
        found = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    @property
    def history(self) -> History:
        """What the pruners of this project ask of the other trials."""
        return self._history

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        found = self._history.best_complete()
        if found is None:
            raise ValueError("No trials are completed yet.")
        number, _ = found
        if self._best is None or self._best.number != number:
            key = self.get_trial_id_from_study_id_trial_number(study_id, number)
            self._best = self._read(lambda connection: read_trials(connection, [key]))[0]
        return self._best

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        trial = t.trials.c
        query = sa.select(trial.trial_id).where(
            trial.study_id == study_id, trial.number == trial_number
        )
        found = self._read(lambda connection: connection.execute(query).scalar_one_or_none())
        if found is None:
            raise KeyError(f"study {study_id} has no trial {trial_number}")
        return int(found)

    def sampled_trials(self, recent: int) -> list[FrozenTrial]:
        """Complete, pruned and running trials of the TPE sampler's window; not to be changed.

        They have what TPE looks at and lack the rest. The leased trial is not among them.
        """
        if self._window is None or self._window.recent != recent:
            maximize = self._record.direction == "maximize"
            self._window = WindowTrials(self._record.study_id, recent, maximize=maximize)
        window, own = self._window, None if self._trial is None else self._trial._trial_id
        return self._read(lambda connection: window.refreshed(connection, own))

    # The study itself.

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self._record.name:
            raise KeyError(study_name)
        return self._record.study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._record.name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection[self._record.direction.upper()]]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._attributes(t.study_user_attributes)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._attributes(t.study_system_attributes)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_attribute(t.study_user_attributes, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_attribute(t.study_system_attributes, key, value)

    def _attributes(self, table: sa.Table) -> dict[str, Any]:
        query = sa.select(table.c.key, table.c.value_json).where(
            table.c.study_id == self._record.study_id
        )
        rows = self._read(lambda connection: connection.execute(query).all())
        return {row.key: json.loads(row.value_json) for row in rows}

    def _read(self, work: Work[T]) -> T:
        return self._database.read(work, self.read_patience)

    def _set_attribute(self, table: sa.Table, key: str, value: Any) -> None:
        row = {"study_id": self._record.study_id, "key": key, "value_json": json.dumps(value)}
        self._database.write(lambda c: upsert(c, table, [row], ("study_id", "key")))

    def get_all_studies(self) -> list[FrozenStudy]:
        study_id = self._record.study_id
        return [
            FrozenStudy(
                study_name=self._record.name,
                direction=None,
                directions=self.get_study_directions(study_id),
                user_attrs=self.get_study_user_attrs(study_id),
                system_attrs=self.get_study_system_attrs(study_id),
                study_id=study_id,
            )
        ]

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        raise RuntimeError("a study is created with hpo.study.create_study")

    def delete_study(self, study_id: int) -> None:
        raise RuntimeError("a study is not deleted by a worker")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        raise RuntimeError("a trial is created with the claim of its slot")


def _as_stored(value: Any) -> Any:
    """What the next reader gets: tuples become lists, and what is no JSON fails here and now."""
    return json.loads(json.dumps(value))


def make_study(
    storage: StudyStorage,
    record: StudyRecord,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    """An Optuna study on the storage for one trial, with the trial's own sampler."""
    study = optuna.Study(record.name, storage, sampler=sampler, pruner=pruner)
    # Grid and brute-force samplers call study.stop() when they have tried everything, and Optuna
    # allows that inside `optimize` only.
    study._thread_local.in_optimize_loop = True
    return study
