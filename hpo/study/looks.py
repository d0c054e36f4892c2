"""How far a study's trials are known, and what has ended since the last look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.study import tables as t

__all__ = ["OPEN", "Seen"]

OPEN = (TrialState.RUNNING, TrialState.WAITING)
# Drivers limit how many values one statement may carry.
_CHUNK = 500

_TRIAL = sa.select(t.trials.c.trial_id, t.trials.c.state)
_AGAIN = _TRIAL.where(t.trials.c.trial_id.in_(sa.bindparam("open", expanding=True)))
# Two selects and no OR, which SQLite would answer by going through the whole study.
_LOOK = sa.union_all(
    _TRIAL.where(
        t.trials.c.study_id == sa.bindparam("study"), t.trials.c.trial_id > sa.bindparam("last")
    ),
    _AGAIN,
)


@dataclass(frozen=True)
class Seen:
    """How far the trials of a study are known.

    Attributes:
        last: Every trial up to this key has been seen. Trials are numbered under a lock on the
            study, so none with a smaller key appears later.
        open: Those of them that had not ended, with their states.
    """

    last: int = 0
    open: Mapping[int, TrialState] = field(default_factory=dict)

    def look(self, connection: sa.Connection, study_id: int) -> tuple[Seen, dict[int, TrialState]]:
        """What is known after another look, and the trials that have ended since, by key."""
        known = list(self.open)
        whole = {"study": study_id, "last": self.last, "open": known[:_CHUNK]}
        rows = list(connection.execute(_LOOK, whole))
        for start in range(_CHUNK, len(known), _CHUNK):
            rows += connection.execute(_AGAIN, {"open": known[start : start + _CHUNK]})
        states = {trial_id: TrialState[state] for trial_id, state in sorted(rows)}
        still = {i: state for i, state in states.items() if state in OPEN}
        ended = {i: state for i, state in states.items() if state not in OPEN}
        return Seen(max([self.last, *states]), still), ended
