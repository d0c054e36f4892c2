"""Trials of one study in a worker's memory; each look reads what is new since the last one."""

from __future__ import annotations

from collections.abc import Container, Sequence

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.looks import OPEN, Seen
from hpo.study.reading import SampledTrial, read_sampled, read_trials
from hpo.study.window import BEST, best_of

__all__ = ["AllTrials", "WindowTrials"]

_SAMPLED = ("COMPLETE", "PRUNED")


class AllTrials:
    """Every trial of a study with all that belongs to it; finished ones are read once.

    Not thread-safe.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self._study_id = study_id
        self._finished: dict[int, FrozenTrial] = {}
        self._seen = Seen()

    def load(self, trial_id: int) -> FrozenTrial:
        """One trial. Raises KeyError when there is none of that key."""
        if trial_id in self._finished:
            return self._finished[trial_id]
        found = self._database.read(lambda connection: read_trials(connection, [trial_id]))
        if not found:
            raise KeyError(trial_id)
        return found[0]

    def refreshed(
        self, states: Container[TrialState] | None, patience: float | None
    ) -> list[FrozenTrial]:
        """All trials in the order of their numbers; those in `states` are up to date."""
        unfinished = self._database.read(lambda c: self._refresh(c, states), patience)
        trials = [*self._finished.values(), *unfinished]
        return sorted(trials, key=lambda trial: trial._trial_id)

    def _refresh(
        self, connection: sa.Connection, states: Container[TrialState] | None
    ) -> list[FrozenTrial]:
        """Keeps what has finished since and returns what is unfinished and in `states`."""
        seen, ended = self._seen.look(connection, self._study_id)
        news = read_trials(connection, list(ended))
        wanted = [i for i, state in seen.open.items() if states is None or state in states]
        unfinished = read_trials(connection, wanted)
        # All at once at the end: a look that the database breaks off is repeated.
        self._finished |= {trial._trial_id: trial for trial in news}
        self._seen = seen
        return unfinished


class WindowTrials:
    """The trials that the TPE sampler learns from, with no more than it looks at.

    Finished ones are those that `window_of` would choose among all of the study's. To join a
    study costs the window and not the study. Not thread-safe.
    """

    def __init__(self, study_id: int, recent: int, *, maximize: bool) -> None:
        self._study_id = study_id
        self.recent = recent
        self._maximize = maximize
        self._seen: Seen | None = None
        self._best: list[FrozenTrial] = []
        self._recent: list[FrozenTrial] = []
        self._told: dict[int, SampledTrial] = {}

    def tell(self, trial: FrozenTrial) -> None:
        """A trial that this worker has ended: the next look need not read it."""
        if self._seen is not None:
            self._told = {_key(trial): SampledTrial.of(trial)}

    def refreshed(self, connection: sa.Connection, without: int | None = None) -> list[FrozenTrial]:
        """The finished trials of the window and the running ones, in the order of their numbers.

        Args:
            without: Key of a running trial that is not asked for.
        """
        if self._seen is None:
            seen = self._joined(connection)
            ended = self._chosen(connection, seen.last)
        else:
            seen, states = self._seen.look(connection, self._study_id)
            ended = list(states)
        running = [i for i, state in seen.open.items() if state is TrialState.RUNNING]
        # One that was ended from outside is read like any other.
        wanted = (({*running} - {without}) | {*ended}) - {*self._told}
        read = read_sampled(connection, sorted(wanted))
        news = self._told | {_key(trial): trial for trial in read}
        # Of the running ones, those that have ended since the look are seen with the next one.
        others = [news[i] for i in running if i in news and news[i].state is TrialState.RUNNING]
        self._add([news[i] for i in ended])
        self._seen, self._told = seen, {}
        window = {_key(trial): trial for trial in [*self._best, *self._recent, *others]}
        return [window[i] for i in sorted(window)]

    def _add(self, ended: Sequence[FrozenTrial]) -> None:
        """What was kept of the trials before is enough to choose with some more."""
        news = {_key(trial): trial for trial in ended if trial.state.name in _SAMPLED}
        if news:
            # One that ended while this worker joined is news twice.
            best = {_key(trial): trial for trial in self._best} | news
            self._best = best_of(best.values(), maximize=self._maximize)
            recent = {_key(trial): trial for trial in self._recent} | news
            self._recent = [recent[i] for i in sorted(recent)[-self.recent :]]

    def _joined(self, connection: sa.Connection) -> Seen:
        """All that is there counts as seen, before the first choice is made among it."""
        trial = t.trials.c
        ours = trial.study_id == self._study_id
        last = connection.execute(sa.select(sa.func.max(trial.trial_id)).where(ours)).scalar_one()
        query = sa.select(trial.trial_id, trial.state).where(
            ours, trial.state.in_([state.name for state in OPEN])
        )
        states = {trial_id: TrialState[state] for trial_id, state in connection.execute(query)}
        return Seen(last or 0, states)

    def _chosen(self, connection: sa.Connection, last: int) -> list[int]:
        """Keys of finished trials among which are those of the window."""
        trial, value = t.trials.c, t.trial_values.c
        ended = (trial.study_id == self._study_id, trial.trial_id <= last)
        recent = (
            sa.select(trial.trial_id)
            .where(*ended, trial.state.in_(_SAMPLED))
            .order_by(trial.trial_id.desc())
        )
        found = set(connection.execute(recent.limit(self.recent)).scalars())
        if len(found) < self.recent:
            return sorted(found)
        rank = sa.case(
            (value.value_type == "INF_POS", 1), (value.value_type == "INF_NEG", -1), else_=0
        )
        order = [rank.desc(), value.value.desc()] if self._maximize else [rank, value.value]
        best = (
            sa.select(trial.trial_id)
            .join(t.trial_values, value.trial_id == trial.trial_id)
            .where(*ended, trial.state == "COMPLETE")
            .order_by(*order, trial.trial_id)
            .limit(BEST)
        )
        leaders = list(connection.execute(best).scalars())
        if len(leaders) < BEST:
            # Pruned trials rank by their last report, which no column has: rare enough to read all.
            return sorted(connection.execute(recent).scalars())
        return sorted(found.union(leaders))


def _key(trial: FrozenTrial) -> int:
    return trial._trial_id
