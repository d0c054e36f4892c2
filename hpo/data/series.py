"""Series in long form: a table with a row a time step, put in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.columns import column_array
from hpo.data.features import Array
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
        wrong = pd.to_numeric(column, errors="coerce").isna() & column.notna()
        if wrong.any():
            # Rows are counted otherwise here than in the file.
            row = int(wrong.to_numpy().argmax())
            raise DataError(
                f"{name!r} should be numeric, but is {column.iloc[row]!r} in {self.place(row)}; "
                f"{int(wrong.sum())} of {len(column)} values are no numbers"
            )
        return column_array(column, Column(kind="numeric"))

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


def check_gaps(table: LongTable, numbers: Array, columns: tuple[str, ...]) -> None:
    """Raises DataError when a number is missing; names the first."""
    missing = np.isnan(numbers)
    if missing.any():
        row, column = (int(i) for i in np.argwhere(missing)[0])
        raise DataError(
            f"{columns[column]!r} is missing in {table.place(row)}, and {int(missing.sum())} of "
            f"{missing.size} values in all. Fill them in, or set `preprocess.missing`."
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
                f"the time {column.name!r} is {column.iloc[row]!r} in row {row}, counted from 0; "
                "expected numbers, or dates such as 2026-11-22 or 2026-11-22T08:30"
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
