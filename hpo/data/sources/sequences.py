"""Sequences: series in long form, labelled one by one, or cut into windows to forecast from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo.data.columns import shown
from hpo.data.features import Array
from hpo.data.padding import padded
from hpo.data.preprocessing import FILLING
from hpo.data.raw import RawData, SourceFiles
from hpo.data.series import LongTable, check_gaps, order_series
from hpo.data.sources.table import column_values, target_array
from hpo.data.splits import parts_in_time
from hpo.data.tablefile import check_column, read_codes
from hpo.errors import DataError
from hpo.spec.models import DataSpec, SequencesSource

# A step this many times as long as the usual one is a gap; months have 28 to 31 days.
_GAP = 1.5


def load_sequences(
    source: SequencesSource, files: SourceFiles, data: DataSpec, project: Path
) -> RawData:
    """One sample a series, padded with NaN after its last step; or one a window.

    Raises DataError when a file can't be read, a column is not there, or series can't be used.
    """
    if source.window is not None:
        return _load_windows(source, files, data, project)
    rule = data.preprocess.missing
    labels = None if source.targets is None else _read_labels(source, data, project)
    tables = [
        _read_series(source, data, files.columns, labels, project / path) for _, path in files.files
    ]
    return _joined(
        [_labelled(table, source, labels, files.columns, rule) for table in tables], source, files
    )


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Series with one value of target and split columns each."""

    series: list[Array]
    facts: pd.DataFrame
    warnings: tuple[str, ...]


def _joined(parts: list[_Labelled], source: SequencesSource, files: SourceFiles) -> RawData:
    series = [each for part in parts for each in part.series]
    facts = pd.concat([part.facts for part in parts], ignore_index=True)
    x = padded(series, source.length)
    lengths = {min(len(each), x.shape[1]) for each in series}
    targets = _targets(source)
    return RawData(
        x=x,
        y=target_array(facts, targets),
        class_names=tuple(targets) if len(targets) > 1 else None,
        form={
            **_form(source),
            "mask": True,
            "length": source.length,
            "steps": x.shape[1] if len(lengths) == 1 else None,
        },
        columns={name: column_values(facts[name]) for name in files.columns},
        parts=files.parts([len(part.series) for part in parts]),
        warnings=tuple(words for part in parts for words in part.warnings),
    )


def _form(source: SequencesSource) -> dict[str, Any]:
    return {
        "type": "sequences",
        "id": source.id,
        "time": source.time,
        "values": list(source.values),
    }


def _targets(source: SequencesSource) -> list[str]:
    return [source.target] if isinstance(source.target, str) else list(source.target)


def _read_series(
    source: SequencesSource,
    data: DataSpec,
    columns: tuple[str, ...],
    labels: pd.DataFrame | None,
    path: Path,
) -> LongTable:
    numbers = [source.time, *source.values, *(_targets(source) if source.window else ())]
    frame = read_codes(path, data, source.target, [source.id], numbers)
    wanted = [*_targets(source), *columns]
    if labels is not None:
        wanted = [name for name in columns if name not in labels.columns]
    for name in (source.id, source.time, *source.values, *wanted):
        check_column(frame, name, path)
    both = sorted(set(source.values) & set(wanted))
    if both and source.window is None:
        raise DataError(f"the column {both[0]!r} is the target or splits; leave it out of `values`")
    try:
        return order_series(frame, source.id, source.time)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read_labels(source: SequencesSource, data: DataSpec, project: Path) -> pd.DataFrame:
    """The second table, by series."""
    path = project / str(source.targets)
    frame = read_codes(path, data, source.target, [source.id])
    for name in (source.id, *_targets(source)):
        check_column(frame, name, path)
    frame = frame.set_index(frame[source.id].astype(str))
    twice = frame.index.duplicated()
    if twice.any():
        raise DataError(f"{path} has two rows for series {frame.index[twice][0]!r}; expected one")
    return frame


def _labelled(
    table: LongTable,
    source: SequencesSource,
    labels: pd.DataFrame | None,
    columns: tuple[str, ...],
    rule: str,
) -> _Labelled:
    numbers = table.numbers(source.values)
    facts = _facts(table, [*_targets(source), *columns], labels, source)
    if rule not in (*FILLING, "drop"):
        check_gaps(table, numbers, source.values)
    series = table.split(numbers)
    close = table.told_apart_no_more(source.values, numbers)
    if rule != "drop":
        return _Labelled(series, facts, close)
    whole = [row for row, each in enumerate(series) if not np.isnan(each).any()]
    if not whole:
        raise DataError("every series has values missing, so that `missing: drop` leaves none")
    dropped = len(series) - len(whole)
    words = (f"{dropped} of {len(series)} series have values missing and are dropped",)
    kept = facts.iloc[whole].reset_index(drop=True)
    return _Labelled([series[row] for row in whole], kept, (*close, *(words if dropped else ())))


def _facts(
    table: LongTable, columns: list[str], labels: pd.DataFrame | None, source: SequencesSource
) -> pd.DataFrame:
    """What is said of each series as a whole, a row a series."""
    found = {}
    for name in dict.fromkeys(columns):
        if labels is not None and name in labels.columns:
            found[name] = _looked_up(table, labels, name, source)
        else:
            found[name] = _constant(table, name)
    facts = pd.DataFrame(found)
    for name in _targets(source):
        missing = facts[name].isna()
        if missing.any():
            series = table.names[int(missing.to_numpy().argmax())]
            raise DataError(
                f"the target {name!r} is missing for {int(missing.sum())} of {len(facts)} series, "
                f"the first is {series!r}. Leave those series out, or fill it in."
            )
    return facts


def _looked_up(
    table: LongTable, labels: pd.DataFrame, name: str, source: SequencesSource
) -> pd.Series[Any]:
    ids = pd.Index([str(each) for each in table.names])
    unknown = ~ids.isin(labels.index)
    if unknown.any():
        first = str(ids[unknown][0])
        alike = [each for each in labels.index if each.lstrip("0") == first.lstrip("0")]
        hint = f"; it has {alike[0]!r}: write the ids alike in both files" if alike else ""
        raise DataError(
            f"{source.targets} has no row for {int(unknown.sum())} of {len(ids)} series, the first "
            f"is {first!r}{hint}"
        )
    return labels.loc[ids, name].reset_index(drop=True)


def _constant(table: LongTable, name: str) -> pd.Series[Any]:
    """The value of a column in each series, which must be the same in all of its rows."""
    column = table.frame[name]
    codes, _ = pd.factorize(column)
    firsts = table.starts[:-1]
    differs = codes != np.repeat(codes[firsts], table.lengths)
    if differs.any():
        row = int(differs.argmax())
        first = firsts[np.searchsorted(table.starts, row, side="right") - 1]
        raise DataError(
            f"the column {name!r} changes within a series: it is {shown(column.iloc[first])} in "
            f"{table.place(int(first))}, and {shown(column.iloc[row])} in {table.place(row)}. "
            "Expected one value a series; to forecast a column set `window` and `horizon`."
        )
    return column.iloc[firsts].reset_index(drop=True)


def _load_windows(
    source: SequencesSource, files: SourceFiles, data: DataSpec, project: Path
) -> RawData:
    """Windows of all series; those that lie across a border of the parts are left out."""
    _check_split(files, data)
    assert source.window is not None
    assert source.horizon is not None
    targets = tuple(_targets(source))
    table = _read_series(source, data, (), None, project / source.path)
    steps = np.concatenate([table.numbers(source.values), table.numbers(targets)], axis=1)
    if data.preprocess.missing not in ("drop", *FILLING):
        check_gaps(table, steps, (*source.values, *targets))
    elif data.preprocess.missing != "drop":
        check_gaps(table, steps[:, len(source.values) :], targets)
    rows, warnings = _window_rows(table, source)
    if not len(rows):
        raise DataError(
            f"no series has {source.window} + {source.horizon} steps for a window and what follows "
            f"it; the longest has {int(table.lengths.max())}. Set a smaller window or horizon."
        )
    if data.preprocess.missing == "drop":
        rows, warnings = _whole(rows, steps, source, warnings)
    parts = parts_in_time(table.times[rows[:, source.window]], table.times[rows[:, -1]], data.split)
    rows, parts = rows[parts != ""], parts[parts != ""]
    ahead = steps[rows[:, source.window :], len(source.values) :]
    return RawData(
        x=steps[rows[:, : source.window], : len(source.values)],
        y=ahead.reshape(len(rows), -1),
        form={
            **_form(source),
            "length": source.window,
            "steps": source.window,
            "horizon": source.horizon,
            "targets": list(targets),
        },
        parts=parts,
        warnings=(
            *table.told_apart_no_more(source.values, steps[:, : len(source.values)]),
            *warnings,
            *_uneven(table),
        ),
    )


def _check_split(files: SourceFiles, data: DataSpec) -> None:
    if files.columns or len(files.files) > 1:
        raise DataError(
            "windows are split by time: give `split.validation` and `split.test` as fractions, "
            "without column, group and time"
        )
    if data.preprocess.mask:
        raise DataError("windows have one length: leave out `preprocess.mask`")


def _window_rows(table: LongTable, source: SequencesSource) -> tuple[Array, tuple[str, ...]]:
    """The row numbers of each window and what follows it, (windows, window + horizon)."""
    assert source.window is not None
    assert source.horizon is not None
    span = source.window + source.horizon
    firsts = [
        np.arange(start, end - span + 1, source.stride)
        for start, end in zip(table.starts[:-1], table.starts[1:], strict=True)
    ]
    short = [name for name, first in zip(table.names, firsts, strict=True) if not len(first)]
    words = f"{len(short)} of {len(firsts)} series have fewer than {span} steps and give no window"
    warnings = (f"{words}; the first is {short[0]!r}",) if short else ()
    return np.concatenate(firsts)[:, None] + np.arange(span), warnings


def _whole(
    rows: Array, steps: Array, source: SequencesSource, warnings: tuple[str, ...]
) -> tuple[Array, tuple[str, ...]]:
    """The windows without a value missing in them, or in what is to be forecast from them."""
    width = len(source.values)
    inside = np.isnan(steps[rows[:, : source.window], :width])
    ahead = np.isnan(steps[rows[:, source.window :], width:])
    lacks = inside.any(axis=(1, 2)) | ahead.any(axis=(1, 2))
    if not lacks.any():
        return rows, warnings
    if lacks.all():
        raise DataError("every window has values missing, so that `missing: drop` leaves none")
    words = f"{int(lacks.sum())} of {len(rows)} windows have values missing and are dropped"
    return rows[~lacks], (*warnings, words)


def _uneven(table: LongTable) -> tuple[str, ...]:
    """A word about steps that are missing."""
    moments = table.times.astype(np.int64 if table.times.dtype.kind == "M" else np.float64)
    elapsed = np.diff(moments)
    within = np.ones(len(elapsed), np.bool_)
    within[table.starts[1:-1] - 1] = False
    wide = within & (elapsed > _GAP * np.median(elapsed[within]))
    if not wide.any():
        return ()
    words = (
        f"{int(wide.sum())} of {int(within.sum())} steps are longer than usual, the first after "
        f"{table.place(int(wide.argmax()))}: windows take rows as they follow each other; "
        "put in the steps that are missing"
    )
    return (words,)
