"""Series in long form: a table with a row a time step, put in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.checks import LARGEST, OR_SET_MISSING
from hpo.data.columns import column_array, shown, too_large
from hpo.data.features import Array
from hpo.data.precision import columns_told_apart_no_more
from hpo.errors import DataError
from hpo.spec.models import Column


@dataclass(frozen=True, eq=False)
class LongTable:
    """The rows of series in the order of their first appearance and of time.

    Attributes:
        frame: The table in that order.
        names: Of the series, as the table has them.
        times: Numbers or dates, (rows,).
        starts: Where each series begins, and at last the number of rows.
    """

    frame: pd.DataFrame
    names: list[Any]
    times: Array
    starts: Array

    @property
    def lengths(self) -> Array:
        """The number of steps of each series."""
        return np.diff(self.starts)

    def numbers(self, columns: tuple[str, ...]) -> Array:
        """Columns as float32 (rows, columns), NaN where missing.

        Raises DataError when a value is no number.
        """
        return np.stack([self._number(name) for name in columns], axis=1)

    def _number(self, name: str) -> Array:
        column = self.frame[name]
        numbers = pd.to_numeric(column, errors="coerce")
        self._check(column, (numbers.isna() & column.notna()).to_numpy(), "no numbers")
        self._check(column, too_large(numbers), f"infinite or beyond {LARGEST:g}")
        return column_array(column, Column(kind="numeric"))

    def _check(self, column: pd.Series[Any], wrong: Array, what: str) -> None:
        # Rows are counted otherwise here than in the file.
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{column.name!r} should be numeric, but is {shown(column.iloc[row])} in "
                f"{self.place(row)}; {int(wrong.sum())} of {len(column)} values are {what}"
            )

    def told_apart_no_more(self, columns: tuple[str, ...], numbers: Array) -> tuple[str, ...]:
        """Words about columns whose `numbers` are fewer than their values."""
        by_name = {name: numbers[:, place] for place, name in enumerate(columns)}
        return tuple(columns_told_apart_no_more(self.frame, by_name))

    def split(self, rows: Array) -> list[Array]:
        """An array with a row for each row of the table, by series."""
        return np.split(rows, self.starts[1:-1])

    def place(self, row: int) -> str:
        """Names the series and the time of a row."""
        series = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"series {self.names[series]!r} at {_moment(self.times[row])}"


def order_series(frame: pd.DataFrame, id_column: str, time_column: str) -> LongTable:
    """Puts the rows of each series together, in the order of time.

    Raises DataError when an id or a time is missing, a time is none or stands twice in a series.
    """
    for name in (id_column, time_column):
        missing = frame[name].isna()
        if missing.any():
            row = int(missing.to_numpy().argmax())
            raise DataError(f"the column {name!r} is missing in row {row}, counted from 0")
    codes, names = pd.factorize(frame[id_column])
    times = _times(frame[time_column])
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    starts = np.searchsorted(codes, np.arange(len(names) + 1))
    table = LongTable(frame.iloc[order].reset_index(drop=True), _plain(names), times, starts)
    twice = (codes[1:] == codes[:-1]) & (times[1:] == times[:-1])
    if twice.any():
        raise DataError(
            f"{table.place(int(twice.argmax()))} has two rows, and {int(twice.sum())} rows in all "
            f"repeat a time of their series; expected one row a time step. Is {id_column!r} the "
            "column that names the series?"
        )
    return table


def check_gaps(
    table: LongTable, numbers: Array, columns: tuple[str, ...], otherwise: str = OR_SET_MISSING
) -> None:
    """Raises DataError when a number is missing; names the first, and what else could be done."""
    missing = np.isnan(numbers)
    if missing.any():
        row, column = (int(i) for i in np.argwhere(missing)[0])
        raise DataError(
            f"{columns[column]!r} is missing in {table.place(row)}, and {int(missing.sum())} of "
            f"{missing.size} values in all. Fill them in{otherwise}."
        )


def _times(column: pd.Series[Any]) -> Array:
    """Numbers or dates; texts may say either."""
    if column.dtype.kind in "iuf":
        return column.to_numpy()
    if column.dtype.kind != "M":
        dates = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
        numbers = pd.to_numeric(column, errors="coerce")
        said = dates if dates.notna().sum() > numbers.notna().sum() else numbers
        if column.dtype.kind == "b" or said.isna().any():
            row = int(said.isna().to_numpy().argmax())
            raise DataError(
                f"the time {column.name!r} is {shown(column.iloc[row])} in row {row}, counted from "
                "0; expected numbers, or dates such as 2026-11-22 or 2026-11-22T08:30"
            )
        column = said
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return column.to_numpy()


def _plain(names: Any) -> list[Any]:
    """Ids as JSON has them: whole numbers or texts."""
    values = names.tolist()
    return [value if isinstance(value, int | str) else str(value) for value in values]


def _moment(time: Any) -> str:
    if isinstance(time, np.datetime64):
        return str(pd.Timestamp(time).isoformat())
    return f"time {time}"
