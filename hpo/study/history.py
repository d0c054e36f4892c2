"""What pruners ask of a study's other trials, kept as columns of numbers.

A pruner compares with one step or one rung at a time. That column is read once, when it is first
asked for; from then on each look reads only what has ended since. A number takes 12 bytes, where
Optuna's pruners would have every trial in memory and go through all of them at each report.
"""

from __future__ import annotations

import binascii
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.study import tables as t
from hpo.study.database import Work
from hpo.study.looks import Seen, chunks
from hpo.study.reading import INFINITE
from hpo.study.studies import StudyRecord

__all__ = ["History", "Marks", "rung_key"]

# So many are put in their places; of more everything is sorted again.
_FEW = 100

Rows = list[tuple[int, int, Any, float]]


def rung_key(rung: int) -> str:
    """The attribute in which Optuna's SuccessiveHalvingPruner notes a trial's value at a rung."""
    return f"completed_rung_{rung}"


@dataclass(frozen=True)
class Marks:
    """Numbers of the trials that have come to a rung, and their values there."""

    numbers: np.ndarray
    values: np.ndarray


class History:
    """What the other trials of one study have reached, up to date at each question.

    Not thread-safe.

    Args:
        read: Runs work in a reading transaction of the database.
    """

    def __init__(self, read: Callable[[Work[Any]], Any], record: StudyRecord) -> None:
        self._read = read
        self._maximize = record.direction == "maximize"
        self._name = record.name
        self._checksums = array("L")
        self._complete = _CompleteTrials(record.study_id)
        self._running = _best_reports(maximize=self._maximize)
        self._rungs = _Rungs(record.study_id)

    def tell(self, trial: FrozenTrial) -> None:
        """A trial that this worker has ended: the next look need not read it."""
        self._complete.tell(trial)
        self._rungs.tell(trial)

    def complete_reports(self, step: int) -> tuple[int, np.ndarray]:
        """How many trials are complete, and what those with the step reported there, sorted."""
        found: tuple[int, np.ndarray] = self._read(lambda c: self._complete.reports(c, step))
        return found

    def last_complete_step(self) -> int | None:
        """The last step that a complete trial has reported, None without any report."""
        found: int | None = self._read(self._complete.last_step)
        return found

    def best_complete(self) -> tuple[int, float] | None:
        """Number and value of the best complete trial; of equal ones the first."""
        found = self._read(self._complete.values)
        if not len(found.values):
            return None
        best = float(found.values.max() if self._maximize else found.values.min())
        return int(found.numbers[found.values == best].min()), best

    def best_running(self, without: int) -> tuple[int, float] | None:
        """Number and best finite report of the best trial that has not ended; else as above.

        Args:
            without: Key of a running trial that is not asked for.
        """
        rows: list[tuple[int, float]] = self._read(lambda c: self._reported(c, without))
        sign = 1 if self._maximize else -1
        return max(rows, key=lambda row: (sign * row[1], -row[0]), default=None)

    def _reported(self, connection: sa.Connection, without: int) -> list[tuple[int, float]]:
        others = [key for key in self._complete.running(connection) if key != without]
        rows = [
            row
            for chunk in chunks(others)
            for row in connection.execute(self._running, {"ids": chunk})
        ]
        return [(int(number), float(value)) for number, value in rows]

    def marks(self, rung: int, without: int | None = None) -> Marks:
        """The values of all trials, running ones too, that have come to the rung.

        Args:
            without: Key of a running trial that is not asked for.
        """
        found: Marks = self._read(lambda connection: self._rungs.marks(connection, rung, without))
        return found

    def checksums(self, numbers: np.ndarray) -> np.ndarray:
        """What Optuna's HyperbandPruner draws the brackets of these trials from."""
        for number in range(len(self._checksums), numbers.max(initial=-1) + 1):
            self._checksums.append(binascii.crc32(f"{self._name}_{number}".encode()))
        found: np.ndarray = np.array(self._checksums)[numbers]
        return found


class _Column:
    """One value of each of many trials, in the order in which they became known."""

    def __init__(self) -> None:
        self.numbers = array("i")
        self.values = array("d")
        self._sorted = np.empty(0)

    def add(self, number: int, value: float) -> None:
        self.numbers.append(number)
        self.values.append(value)

    def add_packed(self, numbers: bytes | None, values: bytes | None) -> None:
        """Many at once, as a network sends them; None for none."""
        self.numbers.frombytes(np.frombuffer(numbers or b"", ">i4").astype("=i4").tobytes())
        self.values.frombytes(np.frombuffer(values or b"", ">f8").astype("=f8").tobytes())

    def in_order(self) -> np.ndarray:
        """The values from the smallest to the largest, then NaN."""
        news = np.array(self.values[len(self._sorted) :])
        if len(news) > _FEW:
            self._sorted = np.sort(np.append(self._sorted, news))
        elif len(news):
            news.sort()
            places = np.searchsorted(self._sorted, news)
            self._sorted = np.insert(self._sorted, places, news)
        return self._sorted

    def as_marks(self) -> Marks:
        # Copies: an array that somebody looks into can't grow.
        return Marks(np.array(self.numbers), np.array(self.values))


class _Columns:
    """The columns of one table that have been asked for, each with all of the ended trials.

    Args:
        key: Says to which column a row belongs.
        value: The row's number; `kind` says what it is when SQL has no number for it.
    """

    def __init__(
        self,
        study_id: int,
        key: sa.ColumnElement[Any],
        value: sa.ColumnElement[Any],
        kind: sa.ColumnElement[Any],
        *conditions: sa.ColumnElement[bool],
    ) -> None:
        trial, owner = t.trials.c, key.table.c.trial_id
        # As text: to turn each into an enumeration's member takes longer than to read it.
        kind = sa.type_coerce(kind, sa.String)
        rows = sa.select(trial.trial_id, trial.number, key, value, kind)
        rows = rows.join(t.trials, trial.trial_id == owner).where(*conditions)
        self._study_id = study_id
        self._every = rows.where(
            trial.study_id == sa.bindparam("study"),
            trial.trial_id <= sa.bindparam("last"),
            key == sa.bindparam("column"),
        )
        self._some = rows.where(
            owner.in_(sa.bindparam("ids", expanding=True)),
            key.in_(sa.bindparam("columns", expanding=True)),
        )
        self._packed = _packed(self._every, value, kind)
        self._known: dict[Any, _Column] = {}
        self._told: dict[int, Rows] = {}

    def tell(self, trial: FrozenTrial, found: Mapping[Any, float]) -> None:
        """What a trial that has just ended has in each of its columns, so that nobody reads it."""
        key = trial._trial_id
        self._told = {key: [(key, trial.number, column, float(found[column])) for column in found]}

    def known(self) -> list[Any]:
        return list(self._known)

    def read(
        self, connection: sa.Connection, trial_ids: Sequence[int], columns: Sequence[Any]
    ) -> Rows:
        """What these trials have in these columns."""
        told = [row for i in trial_ids for row in self._told.get(i, ()) if row[2] in columns]
        rows: Rows = told
        if columns:
            for chunk in chunks([i for i in trial_ids if i not in self._told]):
                asked = {"ids": chunk, "columns": columns}
                rows += _numbers(connection.execute(self._some, asked))
        return rows

    def add(self, rows: Rows) -> None:
        for _, number, column, value in rows:
            self._known[column].add(number, value)

    def column(self, connection: sa.Connection, column: Any, seen: Seen) -> _Column:
        """One column, read when it is asked for the first time."""
        if column not in self._known:
            asked = {"study": self._study_id, "last": seen.last, "column": column}
            found = _Column()
            if connection.dialect.name == "postgresql":
                packed = connection.execute(self._packed, asked | {"open": list(seen.open)}).one()
                found.add_packed(*packed)
                self._known[column] = found
                return found
            for trial_id, number, _, value in _numbers(connection.execute(self._every, asked)):
                # What has ended since the look comes with the next one.
                if trial_id not in seen.open:
                    found.add(number, value)
            self._known[column] = found
        return self._known[column]


class _CompleteTrials:
    """Reports and values of the complete trials of a study, and which ones still run."""

    def __init__(self, study_id: int) -> None:
        complete = t.trials.c.state == "COMPLETE"
        report, value = t.trial_intermediate_values.c, t.trial_values.c
        self._study_id = study_id
        self._seen = Seen()
        self._count = 0
        self._reports = _Columns(
            study_id,
            report.step,
            report.intermediate_value,
            report.intermediate_value_type,
            complete,
        )
        self._values = _Columns(study_id, value.objective, value.value, value.value_type, complete)
        # None until it is asked for: then the last step, or -1 while there is none.
        self._last_step: int | None = None

    def reports(self, connection: sa.Connection, step: int) -> tuple[int, np.ndarray]:
        self._refresh(connection)
        column = self._reports.column(connection, step, self._seen)
        return self._count, column.in_order()

    def tell(self, trial: FrozenTrial) -> None:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            self._reports.tell(trial, trial.intermediate_values)
            self._values.tell(trial, {0: trial.value})

    def values(self, connection: sa.Connection) -> Marks:
        self._refresh(connection)
        return self._values.column(connection, 0, self._seen).as_marks()

    def running(self, connection: sa.Connection) -> list[int]:
        """Keys of the trials that have not ended."""
        self._refresh(connection)
        return list(self._seen.open)

    def last_step(self, connection: sa.Connection) -> int | None:
        self._refresh(connection)
        if self._last_step is None:
            ours = {"study": self._study_id}
            self._last_step = connection.execute(_LAST_STEP, ours).scalar_one()
        return None if self._last_step == -1 else self._last_step

    def _refresh(self, connection: sa.Connection) -> None:
        seen, ended = self._seen.look(connection, self._study_id)
        news = [i for i, state in ended.items() if state is TrialState.COMPLETE]
        reports = self._reports.read(connection, news, self._reports.known())
        values = self._values.read(connection, news, self._values.known())
        last = self._last_step
        if last is not None:
            for chunk in chunks(news):
                asked = connection.execute(_LAST_STEP_OF, {"ids": chunk})
                last = max(last, asked.scalar_one())
        # All at once at the end: a look that the database breaks off is repeated.
        self._reports.add(reports)
        self._values.add(values)
        self._seen, self._count, self._last_step = seen, self._count + len(news), last


class _Rungs:
    """The rungs that trials of a study have come to, in whatever state they are."""

    def __init__(self, study_id: int) -> None:
        attr = t.trial_system_attributes.c
        self._study_id = study_id
        self._seen = Seen()
        self._ended = _Columns(study_id, attr.key, attr.value_json, sa.null())

    def tell(self, trial: FrozenTrial) -> None:
        prefix = rung_key(0)[:-1]
        marks = {k: v for k, v in trial.system_attrs.items() if k.startswith(prefix)}
        self._ended.tell(trial, marks)

    def marks(self, connection: sa.Connection, rung: int, without: int | None) -> Marks:
        key = rung_key(rung)
        seen, ended = self._seen.look(connection, self._study_id)
        others = [trial_id for trial_id in seen.open if trial_id != without]
        running = self._ended.read(connection, others, [key])
        news = self._ended.read(connection, list(ended), self._ended.known())
        self._ended.add(news)
        self._seen = seen
        marks = self._ended.column(connection, key, seen).as_marks()
        return Marks(
            np.append(marks.numbers, [number for _, number, _, _ in running]).astype(int),
            np.append(marks.values, [value for _, _, _, value in running]),
        )


def _packed(
    rows: sa.Select[Any], value: sa.ColumnElement[Any], kind: sa.ColumnElement[Any]
) -> sa.Select[Any]:
    """The numbers and values of the rows as two strings of bytes; PostgreSQL only.

    A hundred thousand rows would keep the worker busy for a third of a second.
    """
    # NaN and infinities are numbers there. In JSON they are words that it reads.
    words = {"INF_POS": "Infinity", "INF_NEG": "-Infinity", "NAN": "NaN"}
    special = [
        (sa.cast(kind, sa.String) == name, sa.cast(word, sa.Double)) for name, word in words.items()
    ]
    number = sa.case(*special, else_=sa.cast(value, sa.Double))
    sent = (sa.func.int4send(t.trials.c.number), sa.func.float8send(number))
    nothing = sa.cast(b"", sa.LargeBinary)
    columns: list[Any] = [sa.func.string_agg(each, nothing, type_=sa.LargeBinary) for each in sent]
    running = t.trials.c.trial_id.in_(sa.bindparam("open", expanding=True))
    return rows.with_only_columns(*columns).where(~running)


def _best_reports(*, maximize: bool) -> sa.Select[Any]:
    """Of each of these trials its number and its best report that is a finite number."""
    report, trial = t.trial_intermediate_values.c, t.trials.c
    best = (sa.func.max if maximize else sa.func.min)(report.intermediate_value)
    return (
        sa.select(trial.number, best)
        .join(t.trials, trial.trial_id == report.trial_id)
        .where(
            report.trial_id.in_(sa.bindparam("ids", expanding=True)),
            # What is none has no number there.
            report.intermediate_value.is_not(None),
        )
        .group_by(trial.number)
    )


def _last_step() -> sa.Select[Any]:
    step = sa.func.coalesce(sa.func.max(t.trial_intermediate_values.c.step), -1)
    return sa.select(step)


_LAST_STEP = (
    _last_step()
    .join(t.trials, t.trials.c.trial_id == t.trial_intermediate_values.c.trial_id)
    .where(t.trials.c.study_id == sa.bindparam("study"), t.trials.c.state == "COMPLETE")
)
_LAST_STEP_OF = _last_step().where(
    t.trial_intermediate_values.c.trial_id.in_(sa.bindparam("ids", expanding=True))
)


def _numbers(rows: Iterable[Any]) -> Iterator[tuple[int, int, Any, float]]:
    """Rows with a value that is a number: infinities and NaN are words in SQL or in JSON."""
    for trial_id, number, column, value, kind in rows:
        yield trial_id, number, column, float(INFINITE[kind] if value is None else value)
