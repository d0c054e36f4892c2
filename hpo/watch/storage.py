"""The storage that the dashboard looks at: trials are read quickly, and of large studies a part.

Optuna makes an object of each row before it makes a trial of them, and the page draws every trial:
with 10,000 trials that is 8 seconds and almost another minute, with 100,000 nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from hpo.study.database import Database
from hpo.study.notes import put_before_note
from hpo.study.reading import INFINITE, read_trials
from hpo.study.tables import FINISHED_STATES, trial_values, trials


class WatchedStorage(optuna.storages.RDBStorage):
    """Optuna's storage, on which a large study has some of its trials.

    Which ones is chosen when a study is first looked at; trials that end later are shown, too.
    Studies with several objectives, which are plain Optuna's, are shown whole and read its way.

    Args:
        most: Finished trials of a study that are shown at first; None shows all.
    """

    def __init__(self, database: Database, most: int | None) -> None:
        url = database.engine.url.render_as_string(hide_password=False)
        super().__init__(
            url.replace("{", "{{").replace("}", "}}"),
            # A server that was started again meanwhile has closed the connections.
            engine_kwargs={"pool_pre_ping": True},
            skip_table_creation=True,
        )
        database.adopt(self.engine)
        self._ours = database
        self._most = most
        # Keys of trials by the study's.
        self._hidden: dict[int, frozenset[int]] = {}

    def get_all_studies(self) -> list[FrozenStudy]:
        studies: list[FrozenStudy] = super().get_all_studies()
        for study in studies:
            hidden = self._hidden_of(study._study_id, study.directions)
            if hidden:
                # The name stands above all charts, the note on a page of its own.
                study.study_name += f" ({len(hidden):,} trials not shown)"
                put_before_note(study.system_attrs, _words(len(hidden)))
        return studies

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        directions = self.get_study_directions(study_id)
        if states is not None or len(directions) > 1:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        hidden = self._hidden_of(study_id, directions)
        new = sa.select(trials.c.trial_id).where(
            trials.c.study_id == study_id, trials.c.trial_id > trial_id_greater_than
        )

        def read(connection: sa.Connection) -> list[FrozenTrial]:
            keys = {*included_trial_ids, *connection.execute(new).scalars()}
            return read_trials(connection, sorted(keys - hidden))

        return self._ours.read(read)

    def _hidden_of(self, study_id: int, directions: Sequence[StudyDirection]) -> frozenset[int]:
        found = self._hidden.get(study_id)
        if found is None:
            found = frozenset()
            if self._most is not None and len(directions) == 1:
                rows = self._ours.read(lambda connection: _finished(connection, study_id))
                maximize = directions[0] is StudyDirection.MAXIMIZE
                found = hidden_trials(rows, self._most, maximize=maximize)
        # Of two requests at the same time one's, for all that come.
        return self._hidden.setdefault(study_id, found)


def hidden_trials(
    rows: Sequence[tuple[int, float | None]], most: int, *, maximize: bool
) -> frozenset[int]:
    """The keys of those finished trials that are not among the `most` that stand for all.

    Shown are a quarter each of the best and of the latest, those that were the best when they came,
    and of all others some that are evenly spread.

    Args:
        rows: Each trial's key and, of a complete one, its value, in the order of the trials.
    """
    if len(rows) <= most:
        return frozenset()
    sign = 1 if maximize else -1
    scores = [(sign * value, key) for key, value in rows if value is not None]
    shown = {key for _, key in sorted(scores, reverse=True)[: most // 4]}
    shown |= {key for key, _ in rows[len(rows) - most // 4 :]}
    best = float("-inf")
    for score, key in scores:
        if score > best and len(shown) < most:
            best = score
            shown.add(key)
    others = [key for key, _ in rows if key not in shown]
    room = most - len(shown)
    shown |= {others[place * len(others) // room] for place in range(room)}
    return frozenset(key for key, _ in rows if key not in shown)


def _finished(connection: sa.Connection, study_id: int) -> list[tuple[int, float | None]]:
    value = trial_values.c
    # Values of complete trials alone, as Optuna and the page compare them.
    complete = sa.and_(value.trial_id == trials.c.trial_id, trials.c.state == "COMPLETE")
    query = (
        sa.select(trials.c.trial_id, value.value, value.value_type)
        .outerjoin(trial_values, complete)
        .where(trials.c.study_id == study_id, trials.c.state.in_(FINISHED_STATES))
        .order_by(trials.c.number)
    )
    rows = connection.execute(query)
    return [(key, INFINITE.get(kind, number)) for key, number, kind in rows]


def _words(hidden: int) -> str:
    return (
        f"**{hidden:,} trials are not shown**, because the page would take long to draw them. "
        "Shown are the best and the latest, those that led before, and some of all others. "
        "`hpo status` and `hpo best` know all; `hpo dashboard --trials N` shows more.\n\n"
    )
