"""Tables of the data of a study, for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from hpo.data.report import ColumnReport, DataReport
from hpo.watch.tables import shown


def columns_table(report: DataReport) -> Table:
    """What each column, or array, holds in the training rows."""
    table = _table("columns (training rows)", "name", "kind", "missing", "different", "values")
    for column in report.columns:
        shape = f" {column.shape}" if column.shape else ""
        different = "" if column.different is None else str(column.different)
        cells = (f"{column.kind}{shape}", str(column.missing), different, _values(column))
        table.add_row(column.name, *cells)
    return table


def classes_table(classes: dict[str, tuple[int, int, int]]) -> Table:
    """The rows of each class in each part."""
    table = _table("classes", "class", "train", "validation", "test")
    for name, counts in classes.items():
        table.add_row(name, *map(str, counts))
    return table


def _values(column: ColumnReport) -> str:
    if isinstance(column.low, str) and column.high is None:
        return f"mostly {column.low}"
    return "" if column.low is None else f"{shown(column.low)} to {shown(column.high)}"


def _table(title: str, *headings: Any) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
