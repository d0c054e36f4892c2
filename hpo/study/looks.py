"""How far a study's trials are known, and what has ended since the last look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.study import tables as t

__all__ = ["OPEN", "Seen", "chunks"]

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
        first, *others = chunks(list(self.open)) or [()]
        whole = {"study": study_id, "last": self.last, "open": first}
        rows = list(connection.execute(_LOOK, whole))
        for chunk in others:
            rows += connection.execute(_AGAIN, {"open": chunk})
        states = {trial_id: TrialState[state] for trial_id, state in sorted(rows)}
        still = {i: state for i, state in states.items() if state in OPEN}
        ended = {i: state for i, state in states.items() if state not in OPEN}
        return Seen(max([self.last, *states]), still), ended


def chunks(trial_ids: Sequence[int]) -> list[Sequence[int]]:
    """The keys in as many parts as statements are needed for them."""
    return [trial_ids[start : start + _CHUNK] for start in range(0, len(trial_ids), _CHUNK)]
