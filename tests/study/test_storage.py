"""StudyStorage against plain Optuna's RDBStorage: both tell the same story of a study."""

from __future__ import annotations

import datetime
import math
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import BuilderError, LeaseLostError, StorageError
from hpo.spec.models import CategoricalParameter, FloatParameter
from hpo.study.database import Database
from hpo.study.leases import Lease, Outcome, Slots
from hpo.study.storage import StudyStorage, make_study
from hpo.study.studies import StudyRecord
from hpo.study.suggest import suggest
from tests.servers import Open, Plain
from tests.study.rooms import claimed, expire, new_study, slots_of

DISTRIBUTIONS: dict[str, tuple[BaseDistribution, Any]] = {
    "rate": (FloatDistribution(1e-5, 1e-1, log=True), 0.1 + 1e-17),
    "dropout": (FloatDistribution(0, 1, step=0.25), 0.75),
    "units": (IntDistribution(16, 512, log=True), 64),
    "depth": (IntDistribution(1, 9, step=2), 3),
    "optimizer": (CategoricalDistribution(("sgd", None, 2, 2.5, True)), None),
    "norm": (CategoricalDistribution((False, True)), True),
}
VALUES = {1: 0.25, 2: math.inf, 3: -math.inf, 4: math.nan, 5: 1e-300}


class Holder:
    """A worker's half: slots, storage and the lease that it holds."""

    def __init__(self, database: Database, record: StudyRecord, worker: str = "a") -> None:
        self.database = database
        self.record = record
        self.slots: Slots = slots_of(database, record, worker)
        self.storage = StudyStorage(database, record)

    def begin(self, sampler: Any = None, pruner: Any = None) -> optuna.Trial:
        self.lease: Lease = claimed(self.slots)
        self.storage.hold(self.lease)
        sampler = sampler or optuna.samplers.RandomSampler(seed=self.lease.slot)
        pruner = pruner or optuna.pruners.NopPruner()
        study = make_study(self.storage, self.record, sampler, pruner)
        return optuna.Trial(study, self.lease.trial_id)

    def fill(self) -> None:
        """Everything that a trial can have."""
        trial = self.begin()
        for name, (distribution, value) in DISTRIBUTIONS.items():
            internal = distribution.to_internal_repr(value)
            self.storage.set_trial_param(self.lease.trial_id, name, internal, distribution)
        for step, value in VALUES.items():
            trial.report(value, step)
        trial.set_user_attr("device", {"name": "cpu", "cores": [0, 1], "ünï": None})
        trial.storage.set_trial_system_attr(self.lease.trial_id, "rung", math.inf)

    def end(self, state: str = "COMPLETE", value: float | None = 0.5) -> None:
        self.storage.finish(self.slots, Outcome(state, value))

    def run(self, state: str = "COMPLETE", value: float | None = 0.5) -> None:
        self.fill()
        self.end(state, value)


def _assert_same(ours: list[FrozenTrial], theirs: list[FrozenTrial]) -> None:
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert _fields(mine) == _fields(other)


def _fields(trial: FrozenTrial) -> dict[str, Any]:
    """As text, because NaN differs from NaN; order of parameters counts, other orders do not."""
    fields = dict(trial.__dict__)
    for name in ("_intermediate_values", "intermediate_values", "_user_attrs", "_system_attrs"):
        if isinstance(fields.get(name), dict):
            fields[name] = dict(sorted(fields[name].items()))
    return {name: repr(value) for name, value in fields.items()}


# What plain Optuna reads of our study.


def test_plain_optuna_reads_everything(database: Database, plain: Plain) -> None:
    holder = Holder(database, new_study(database))
    before = datetime.datetime.now() - datetime.timedelta(seconds=5)
    holder.run()
    after = datetime.datetime.now() + datetime.timedelta(seconds=5)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    (trial,) = study.trials
    assert trial.params == {name: value for name, (_, value) in DISTRIBUTIONS.items()}
    assert trial.distributions == {name: dist for name, (dist, _) in DISTRIBUTIONS.items()}
    assert repr(trial.intermediate_values) == repr(VALUES)
    assert (trial.state, trial.value, trial.number) == (TrialState.COMPLETE, 0.5, 0)
    assert trial.user_attrs == {"device": {"name": "cpu", "cores": [0, 1], "ünï": None}}
    assert trial.system_attrs == {"rung": math.inf}
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert before < trial.datetime_start <= trial.datetime_complete < after
    assert study.best_value == 0.5


def test_plain_optuna_may_add_trials_beside(database: Database, plain: Plain) -> None:
    holder = Holder(database, new_study(database, trials=3))
    study = optuna.load_study(study_name="digits", storage=plain(database))
    study.enqueue_trial({"x": 0.5})
    holder.run()
    asked = study.ask()
    asked.suggest_float("x", 0, 1)
    holder.run("PRUNED", 0.1)
    study.tell(asked, 0.7)
    holder.run()
    assert [trial.number for trial in study.trials] == list(range(4))
    assert [trial.params.get("x") for trial in study.trials] == [0.5, None, None, None]
    _assert_same(holder.storage.get_all_trials(1), study.get_trials())


# What our storage reads, against what plain Optuna reads.


def test_all_trials_equal_optunas(database: Database, plain: Plain) -> None:
    record = new_study(database, trials=9)
    holder, other = Holder(database, record), Holder(database, record, "b")
    holder.run("COMPLETE", 0.5)
    holder.run("PRUNED", math.inf)
    holder.run("PRUNED", None)
    holder.run("FAIL", None)
    other.fill()
    other.storage.flush(other.slots)
    theirs = plain(database)
    theirs.create_new_trial(record.study_id, optuna.trial.create_trial(state=TrialState.WAITING))
    _assert_same(holder.storage.get_all_trials(1), theirs.get_all_trials(record.study_id))
    states: list[tuple[TrialState, ...]] = [(), tuple(TrialState), *((s,) for s in TrialState)]
    for wanted in states:
        ours = holder.storage.get_all_trials(1, states=wanted)
        _assert_same(ours, theirs.get_all_trials(record.study_id, states=wanted))


def test_all_trials_equal_optunas_while_others_finish(database: Database, plain: Plain) -> None:
    record = new_study(database, trials=6)
    reader = StudyStorage(database, record)
    holders = [Holder(database, record, worker) for worker in "abc"]
    theirs = plain(database)
    ends = [("COMPLETE", 0.1), ("PRUNED", 0.2), ("FAIL", None)]

    def check() -> None:
        _assert_same(reader.get_all_trials(1), theirs.get_all_trials(record.study_id))
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        ours = reader.get_all_trials(1, states=finished)
        _assert_same(ours, theirs.get_all_trials(record.study_id, states=finished))

    for _ in range(2):
        for holder in holders:
            holder.fill()
            holder.storage.flush(holder.slots)
            check()
        # Later ones end first, so what is settled has holes.
        for holder, (state, value) in zip(reversed(holders), ends, strict=True):
            holder.end(state, value)
            check()


def test_single_trial_equals_optunas(database: Database, plain: Plain) -> None:
    holder = Holder(database, new_study(database))
    holder.run()
    trial_id = holder.lease.trial_id
    _assert_same([holder.storage.get_trial(trial_id)], [plain(database).get_trial(trial_id)])
    assert holder.storage.get_n_trials(1) == 1
    assert holder.storage.get_trial_id_from_study_id_trial_number(1, 0) == trial_id
    assert holder.storage.get_best_trial(1).number == 0
    with pytest.raises(KeyError):
        holder.storage.get_trial(trial_id + 1)


def test_caller_may_change_its_copy(database: Database) -> None:
    holder = Holder(database, new_study(database))
    holder.run()
    (trial,) = holder.storage.get_all_trials(1)
    trial.params.clear()
    trial.set_user_attr("mine", 1)
    (again,) = holder.storage.get_all_trials(1)
    assert again.params
    assert "mine" not in again.user_attrs


def test_study_equals_optunas(database: Database, plain: Plain) -> None:
    record = new_study(database)
    ours, theirs = StudyStorage(database, record), plain(database)
    study_id = record.study_id
    ours.set_study_user_attr(study_id, "team", ["a"])
    ours.set_study_user_attr(study_id, "team", ["a", "b"])
    ours.set_study_system_attr(study_id, "qmc", 3)
    assert ours.get_study_user_attrs(study_id) == theirs.get_study_user_attrs(study_id)
    assert ours.get_study_system_attrs(study_id) == theirs.get_study_system_attrs(study_id)
    assert ours.get_study_directions(study_id) == theirs.get_study_directions(study_id)
    (mine,), (other,) = ours.get_all_studies(), theirs.get_all_studies()
    assert mine == other
    assert ours.get_study_id_from_name("digits") == study_id
    assert ours.get_study_name_from_id(study_id) == "digits"
    with pytest.raises(KeyError):
        ours.get_study_id_from_name("other")


# Writing under a lease.


def test_nothing_is_written_before_the_flush(database: Database, plain: Plain) -> None:
    holder = Holder(database, new_study(database))
    holder.fill()
    assert holder.storage.unwritten
    theirs = plain(database)
    assert theirs.get_all_trials(1)[0].params == {}
    (held,) = holder.storage.get_all_trials(1)
    assert held.params["units"] == 64
    holder.storage.flush(holder.slots)
    assert not holder.storage.unwritten
    _assert_same(holder.storage.get_all_trials(1), theirs.get_all_trials(1))


def test_lost_lease_writes_nothing(database: Database, plain: Plain) -> None:
    record = new_study(database)
    stale = Holder(database, record)
    stale.fill()
    expire(database, stale.lease)
    heir = Holder(database, record, "b")
    heir.begin()
    with pytest.raises(LeaseLostError):
        stale.storage.flush(stale.slots)
    with pytest.raises(LeaseLostError):
        stale.end()
    (trial,) = plain(database).get_all_trials(1)
    assert (trial.params, trial.intermediate_values, trial.state.name) == ({}, {}, "RUNNING")


def test_next_worker_goes_on_with_the_same_trial(database: Database) -> None:
    record = new_study(database, trials=1)
    first = Holder(database, record)
    trial = first.begin()
    rate = FloatParameter(type="float", low=0, high=1)
    value = suggest(trial, "rate", rate)
    trial.report(0.3, 1)
    first.storage.flush(first.slots)
    first.slots.release(first.lease)
    heir = Holder(database, record, "b")
    resumed = heir.begin(optuna.samplers.RandomSampler(seed=99))
    assert heir.lease.resumed
    assert suggest(resumed, "rate", rate) == value
    assert heir.storage.get_trial(heir.lease.trial_id).intermediate_values == {1: 0.3}
    resumed.report(0.4, 2)
    heir.end()
    (ended,) = StudyStorage(database, record).get_all_trials(1)
    assert ended.intermediate_values == {1: 0.3, 2: 0.4}


def test_trouble_keeps_what_was_gathered(prepared_url: str, opened: Open, plain: Plain) -> None:
    database = opened(prepared_url)
    holder = Holder(database, new_study(database))
    holder.fill()
    away = Slots(_Away(prepared_url, patience=0.05), 1, "a", 300)
    with pytest.raises(StorageError):
        holder.storage.flush(away)
    assert holder.storage.unwritten
    with pytest.raises(StorageError):
        holder.storage.finish(away, Outcome("COMPLETE", 0.5))
    holder.end()
    (trial,) = plain(database).get_all_trials(1)
    assert trial.params["units"] == 64
    assert repr(trial.intermediate_values) == repr(VALUES)
    away.database.close()


class _Away(Database):
    """A database whose server is gone."""

    def write(self, work: Any, patience: float | None = None) -> Any:
        def gone(_connection: sa.Connection) -> None:
            raise sa.exc.OperationalError("x", {}, OSError("connection refused"))

        return super().write(gone, patience)

    write_at_once = write


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_trial_costs_few_statements(prepared_url: str, opened: Open) -> None:
    database = opened(prepared_url)
    holder = Holder(database, new_study(database))
    sent: list[str] = []
    sa.event.listen(
        database.engine, "before_cursor_execute", lambda _c, _r, text, *_: sent.append(text)
    )
    trial = holder.begin()
    # The study's lock, and all the rest.
    assert len(sent) == 2
    for name, (distribution, value) in DISTRIBUTIONS.items():
        internal = distribution.to_internal_repr(value)
        holder.storage.set_trial_param(holder.lease.trial_id, name, internal, distribution)
    for write in ({"device": "CPU"}, {"host": "a", "seconds": 1.0}):
        sent.clear()
        for key, attr in write.items():
            trial.set_user_attr(key, attr)
        holder.storage.flush(holder.slots)
        assert len(sent) == 1
    sent.clear()
    trial.report(0.5, 1)
    trial.set_user_attr("epochs", 1)
    holder.end()
    assert len(sent) == 1


def test_failed_trial_tells_its_reason(database: Database, plain: Plain) -> None:
    holder = Holder(database, new_study(database))
    holder.begin()
    holder.storage.fail(holder.slots, "crash: the trainer process was killed")
    (trial,) = plain(database).get_all_trials(1)
    assert trial.state is TrialState.FAIL
    assert trial.user_attrs == {"reason": "crash: the trainer process was killed"}


def test_only_the_leased_trial_is_written(database: Database) -> None:
    holder = Holder(database, new_study(database))
    holder.begin()
    with pytest.raises(RuntimeError, match="not the one that this worker has leased"):
        holder.storage.set_trial_user_attr(holder.lease.trial_id + 1, "a", 1)
    holder.storage.drop()
    with pytest.raises(RuntimeError, match="not the one that this worker has leased"):
        holder.storage.set_trial_user_attr(holder.lease.trial_id, "a", 1)
    assert not holder.storage.unwritten


def test_what_needs_no_worker_is_refused(sqlite_database: Database) -> None:
    storage = StudyStorage(sqlite_database, new_study(sqlite_database))
    with pytest.raises(RuntimeError):
        storage.create_new_trial(1)
    with pytest.raises(RuntimeError):
        storage.create_new_study([])
    with pytest.raises(RuntimeError):
        storage.delete_study(1)
    with pytest.raises(RuntimeError):
        storage.set_trial_state_values(1, TrialState.COMPLETE, [0.5])


def test_attributes_are_what_the_next_reader_gets(sqlite_database: Database) -> None:
    holder = Holder(sqlite_database, new_study(sqlite_database))
    trial = holder.begin()
    trial.set_user_attr("shape", (8, 8))
    assert holder.storage.get_trial(holder.lease.trial_id).user_attrs["shape"] == [8, 8]
    with pytest.raises(TypeError):
        trial.set_user_attr("object", object())
    holder.end()


# Parameters that change between trials.


def _categorical(*choices: Any) -> CategoricalParameter:
    return CategoricalParameter(type="categorical", choices=choices)


@pytest.mark.parametrize("same_worker", [True, False])
def test_changed_choices_are_refused(same_worker: bool, database: Database, plain: Plain) -> None:
    record = new_study(database)
    first = Holder(database, record)
    suggest(first.begin(), "units", _categorical(16, 32))
    first.end()
    second = first if same_worker else Holder(database, record, "b")
    trial = second.begin()
    with pytest.raises(BuilderError, match=r"'units' was .*16, 32.* now it is .*16, 64") as caught:
        suggest(trial, "units", _categorical(16, 64))
    assert "another name" in str(caught.value)
    with pytest.raises(BuilderError):
        suggest(trial, "units", FloatParameter(type="float", low=0, high=1))
    assert "units" not in second.storage.get_trial(second.lease.trial_id).params
    second.storage.fail(second.slots, "choices")
    assert plain(database).get_all_trials(1)[1].params == {}


def test_changed_range_is_allowed(database: Database) -> None:
    holder = Holder(database, new_study(database))
    for high in (1, 2):
        trial = holder.begin()
        suggest(trial, "rate", FloatParameter(type="float", low=0, high=high))
        holder.end()
    assert len(holder.storage.get_all_trials(1)) == 2


def test_parameter_that_only_late_trials_have(sqlite_database: Database, plain: Plain) -> None:
    """It is looked for beyond the first trials of the study too."""
    record = new_study(sqlite_database)
    theirs = optuna.load_study(study_name="digits", storage=plain(sqlite_database))
    theirs.add_trials([optuna.trial.create_trial(value=0.5)] * 110)
    late = CategoricalDistribution((16, 32))
    theirs.add_trial(
        optuna.trial.create_trial(value=0.5, params={"units": 16}, distributions={"units": late})
    )
    holder = Holder(sqlite_database, record)
    with pytest.raises(BuilderError, match="'units' was"):
        suggest(holder.begin(), "units", _categorical(16, 64))


def test_choices_of_another_study_do_not_matter(database: Database) -> None:
    for name, choices in (("one", (1, 2)), ("two", (3, 4))):
        holder = Holder(database, new_study(database, name=name))
        suggest(holder.begin(), "units", _categorical(*choices))
        holder.end()
