"""Pruners decide as Optuna's do, whatever the history and whoever else is at work."""

from __future__ import annotations

import math
import random
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState, create_trial

from hpo.study.database import Database
from hpo.study.history import rung_key
from hpo.study.leases import Outcome
from hpo.study.pruners import near_percentile
from hpo.study.storage import StudyStorage, make_study
from hpo.study.strategies import make_pruner
from hpo.study.studies import StudyRecord
from hpo.study.tpe import WindowTPESampler
from tests.servers import Plain
from tests.study.rooms import claimed, new_study, slots_of

EPOCHS = 9
OPTUNAS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "patient": "PatientPruner",
    "wilcoxon": "WilcoxonPruner",
}
PRUNERS: list[dict[str, Any]] = [
    {"type": "median", "n_startup_trials": 3},
    {"type": "median", "n_startup_trials": 0, "n_warmup_steps": 2, "interval_steps": 3},
    {"type": "percentile", "percentile": 25.0, "n_startup_trials": 2, "n_min_trials": 4},
    {"type": "successive_halving", "reduction_factor": 2},
    {"type": "successive_halving", "min_resource": 1, "reduction_factor": 3, "bootstrap_count": 2},
    {"type": "successive_halving", "min_resource": 2, "min_early_stopping_rate": 1},
    {"type": "hyperband"},
    {"type": "hyperband", "reduction_factor": 2, "max_resource": "auto"},
    {"type": "threshold", "lower": 0.2, "upper": 0.8, "interval_steps": 2},
    {"type": "patient", "patience": 1, "wrapped_pruner": {"type": "median"}},
    {"type": "wilcoxon", "p_threshold": 0.4},
]


def _optunas(options: dict[str, Any]) -> Any:
    """Optuna's own pruner, as a study file names it."""
    options = dict(options)
    name = options.pop("type")
    if name == "hyperband":
        options = {"max_resource": EPOCHS} | options
    if name == "patient":
        options["wrapped_pruner"] = _optunas(options["wrapped_pruner"])
    return getattr(optuna.pruners, OPTUNAS[name])(**options)


@dataclass
class _Pair:
    """One trial in our database and its twin in Optuna's memory."""

    lease: Any
    ours: optuna.Trial
    theirs: optuna.Trial
    step: int = 0


class _Twins:
    """The same study twice, and three workers at work on both; every decision is compared."""

    def __init__(self, database: Database, pruner: dict[str, Any], maximize: bool) -> None:
        direction = "maximize" if maximize else "minimize"
        self.database = database
        self.pruner = pruner
        self.record: StudyRecord = new_study(
            database, trials=60, direction=direction, search={"pruner": pruner}
        )
        self.memory = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(
            study_name="digits", storage=self.memory, direction=direction
        )
        self.rng = random.Random(repr(pruner))
        self.slots = [slots_of(database, self.record, worker) for worker in "abc"]
        self.storages = [StudyStorage(database, self.record) for _ in self.slots]
        self.pairs: list[_Pair | None] = [None] * len(self.slots)
        self.decisions: list[bool] = []

    def value(self) -> float:
        """With ties, and now and then no number."""
        odd = [math.nan, math.inf, -math.inf]
        return self.rng.choice(odd) if self.rng.random() < 0.06 else round(self.rng.random(), 1)

    def add_foreign_trial(self, plain: optuna.study.Study) -> None:
        """One that plain Optuna has run, with a lead or a mark that ours must reckon with."""
        state = self.rng.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        reports = {step: self.value() for step in range(1, self.rng.randint(1, EPOCHS + 1))}
        trial = create_trial(
            state=state,
            value=self.rng.random() if state is TrialState.COMPLETE else None,
            intermediate_values=reports,
            system_attrs={rung_key(rung): round(self.rng.random(), 1) for rung in range(2)},
        )
        for study in (plain, self.study):
            study.add_trial(trial)

    def turn(self) -> None:
        """A worker does the next thing, whichever."""
        worker = self.rng.randrange(len(self.slots))
        pair = self.pairs[worker]
        if pair is None:
            self.pairs[worker] = self._begin(worker)
        elif self._report(worker, pair) or pair.step >= EPOCHS or self.rng.random() < 0.08:
            self._end(worker, pair)
            self.pairs[worker] = None

    def _begin(self, worker: int) -> _Pair:
        if self.rng.random() < 0.2:
            # Somebody who joins late has no memory of its own.
            self.storages[worker] = StudyStorage(self.database, self.record)
        lease, storage = claimed(self.slots[worker]), self.storages[worker]
        storage.hold(lease)
        sampler = optuna.samplers.RandomSampler()
        study = make_study(storage, self.record, sampler, make_pruner(self.record.spec))
        trial_id = self.memory.create_new_trial(self.study._study_id)
        theirs = optuna.Study("digits", self.memory, pruner=_optunas(self.pruner))
        return _Pair(lease, optuna.Trial(study, lease.trial_id), optuna.Trial(theirs, trial_id))

    def _report(self, worker: int, pair: _Pair) -> bool:
        assert pair.ours.number == pair.theirs.number
        pair.step += self.rng.choice([1, 1, 1, 2])
        value = self.value()
        pair.ours.report(value, pair.step)
        pair.theirs.report(value, pair.step)
        ours = pair.ours.should_prune()
        assert ours == pair.theirs.should_prune(), (pair.ours.number, pair.step, value)
        self.storages[worker].flush(self.slots[worker])
        marks = self.memory.get_trial(pair.theirs._trial_id).system_attrs
        assert self.storages[worker].get_trial(pair.lease.trial_id).system_attrs == marks
        self.decisions.append(ours)
        return ours

    def _end(self, worker: int, pair: _Pair) -> None:
        state = "PRUNED" if self.decisions[-1] else self.rng.choice(["COMPLETE"] * 5 + ["FAIL"])
        # Without ties: of equal ones Optuna's storages do not agree which is the best.
        value = self.rng.random() if state != "FAIL" else None
        self.storages[worker].finish(self.slots[worker], Outcome(state, value))
        values = None if value is None else [value]
        self.memory.set_trial_state_values(pair.theirs._trial_id, TrialState[state], values)


def _compare(database: Database, plain: Plain, pruner: dict[str, Any], maximize: bool) -> None:
    with warnings.catch_warnings():
        # Of what is experimental, and of reports that are NaN all together.
        warnings.simplefilter("ignore")
        twins = _Twins(database, pruner, maximize)
        theirs = optuna.load_study(study_name="digits", storage=plain(database))
        for turn in range(130):
            if turn % 25 == 10:
                twins.add_foreign_trial(theirs)
            twins.turn()
    assert set(twins.decisions) == {True, False}


@pytest.mark.parametrize(
    ("number", "maximize"),
    # The last three are Optuna's own, or have one of the others inside.
    [(number, number < 8) for number in range(len(PRUNERS))] + [(n, False) for n in range(8)],
)
def test_decisions_equal_optunas(
    number: int, maximize: bool, sqlite_database: Database, plain: Plain
) -> None:
    _compare(sqlite_database, plain, PRUNERS[number], maximize)


@pytest.mark.parametrize("pruner", [PRUNERS[0], PRUNERS[6]], ids=["median", "hyperband"])
def test_decisions_equal_optunas_on_servers(
    pruner: dict[str, Any], database: Database, plain: Plain
) -> None:
    _compare(database, plain, pruner, maximize=True)


class _Statements:
    """How many statements a database has been sent."""

    def __init__(self, database: Database) -> None:
        self.sent: list[str] = []
        sa.event.listen(database.engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            self.sent.append(statement)


@pytest.mark.parametrize("pruner", [{"type": "median"}, {"type": "successive_halving"}])
def test_a_decision_asks_for_what_is_new(pruner: dict[str, Any], sqlite_database: Database) -> None:
    """Once a step or rung is known, one look at the others and one read of what has ended."""
    record = new_study(sqlite_database, trials=12, search={"pruner": pruner})
    slots, storage = slots_of(sqlite_database, record), StudyStorage(sqlite_database, record)
    for value in range(12):
        lease = claimed(slots)
        storage.hold(lease)
        sampler = optuna.samplers.RandomSampler()
        study = make_study(storage, record, sampler, make_pruner(record.spec))
        trial = optuna.Trial(study, lease.trial_id)
        trial.report(value, 1)
        statements = _Statements(sqlite_database)
        assert trial.should_prune() is False
        assert value < 2 or len(statements.sent) <= 5, statements.sent
        storage.finish(slots, Outcome("COMPLETE", value))


def test_best_complete_trial(sqlite_database: Database, plain: Plain) -> None:
    record = new_study(sqlite_database, direction="minimize")
    theirs = optuna.load_study(study_name="digits", storage=plain(sqlite_database))
    old_hand = StudyStorage(sqlite_database, record)
    assert old_hand.history.best_complete() is None
    with pytest.raises(ValueError, match="No trials are completed"):
        old_hand.get_best_trial(record.study_id)
    best = []
    for value in (0.5, math.inf, 0.5, -1.0, 0.0, -math.inf):
        theirs.add_trial(create_trial(value=value))
        theirs.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: -9.0}))
        newcomer = StudyStorage(sqlite_database, record)
        assert old_hand.history.best_complete() == newcomer.history.best_complete()
        best.append(old_hand.get_best_trial(record.study_id).number)
    assert best == [0, 0, 0, 6, 6, 10]
    assert old_hand.history.best_complete() == (10, -math.inf)


def test_best_running_trial(database: Database, plain: Plain) -> None:
    record = new_study(database, trials=5, direction="minimize")
    reports = [[0.5, 0.2, 0.4], [math.nan, -math.inf], [0.2], []]
    leases, storages = [], []
    for worker, values in zip("abcd", reports, strict=True):
        slots, storage = slots_of(database, record, worker), StudyStorage(database, record)
        lease = claimed(slots)
        storage.hold(lease)
        for step, value in enumerate(values, 1):
            storage.set_trial_intermediate_value(lease.trial_id, step, value)
        storage.flush(slots)
        leases.append(lease)
        storages.append(storage)
    theirs = optuna.load_study(study_name="digits", storage=plain(database))
    theirs.add_trial(create_trial(value=0.1, intermediate_values={1: 0.1}))
    a, b, c, d = leases
    looker = storages[-1].history
    assert looker.best_running(d.trial_id) == (a.number, 0.2)
    assert looker.best_running(a.trial_id) == (c.number, 0.2)
    storages[0].finish(slots_of(database, record, "a"), Outcome("PRUNED", 0.2))
    assert looker.best_running(b.trial_id) == (c.number, 0.2)
    assert looker.best_running(c.trial_id) is None


def test_plain_optuna_and_ours_take_turns(database: Database, plain: Plain) -> None:
    """Each samples and prunes with what the other has written."""
    pruner = {"type": "successive_halving", "min_resource": 1, "reduction_factor": 2}
    record = new_study(database, trials=20, search={"pruner": pruner})
    own = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    sampler = optuna.samplers.TPESampler(n_startup_trials=3, seed=1)
    theirs = optuna.load_study(
        study_name="digits", storage=plain(database), sampler=sampler, pruner=own
    )
    slots, storage = slots_of(database, record), StudyStorage(database, record)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 0, 1)
        for step in (1, 2, 4):
            trial.report(rate * step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return rate

    def our_turn() -> None:
        lease = claimed(slots)
        storage.hold(lease)
        ours = WindowTPESampler(n_startup_trials=3, seed=lease.slot)
        study = make_study(storage, record, ours, make_pruner(record.spec))
        try:
            outcome = Outcome("COMPLETE", objective(optuna.Trial(study, lease.trial_id)))
        except optuna.TrialPruned:
            outcome = Outcome("PRUNED", None)
        storage.finish(slots, outcome)

    for _ in range(8):
        theirs.optimize(objective, n_trials=1)
        our_turn()
    trials = theirs.get_trials()
    assert [trial.number for trial in trials] == list(range(16))
    for turn in (0, 1):
        assert {trial.state for trial in trials[turn::2]} == {
            TrialState.COMPLETE,
            TrialState.PRUNED,
        }
    _assert_decided_as_marked(trials)


def _assert_decided_as_marked(trials: list[optuna.trial.FrozenTrial]) -> None:
    """One after another, so that each trial's rivals at a rung are those before it."""
    for trial in trials:
        pruned = False
        for rung in range(3):
            value = trial.system_attrs.get(rung_key(rung))
            if value is None:
                break
            assert value == trial.intermediate_values[2**rung]
            rivals = [t.system_attrs.get(rung_key(rung)) for t in trials[: trial.number]]
            better = sum(rival > value for rival in rivals if rival is not None)
            count = 1 + sum(rival is not None for rival in rivals)
            pruned = better >= max(count // 2, 1)
        assert (trial.state is TrialState.PRUNED) == pruned


def test_percentile_of_sorted_reports_decides_as_numpys() -> None:
    rng = random.Random(4)
    odd = [math.nan, math.inf, -math.inf, 0.5, 0.5, 1e308, -1e308]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3000):
            count, share = rng.randint(1, 12), rng.choice([0.0, 0.1, 0.5])
            values = [
                rng.choice(odd) if rng.random() < share else rng.random() for _ in range(count)
            ]
            reports, percentile = np.sort(np.array(values)), rng.choice([0, 25.0, 50, 87.3, 100])
            value = rng.choice([*values, rng.random(), math.inf, -math.inf])
            ours = near_percentile(reports, percentile, value)
            numpys = np.nanpercentile(np.array(values), percentile)
            assert (value < ours, value > ours) == (value < numpys, value > numpys)
