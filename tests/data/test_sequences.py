"""Sequences: series in long form, labels, lengths, windows and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.data import open_raw_part, open_search_data
from hpo.data.raw import RawData
from hpo.data.rows import read_series
from hpo.data.sources import load_source
from hpo.errors import DataError
from hpo.spec.models import DataSpec

Load = Callable[..., RawData]
SERIES = 20


def long_table(lengths: list[int] | None = None, *, seed: int = 0) -> pd.DataFrame:
    """Series "s0", "s1", ... of 3 to 8 steps with values a and b, and a label each."""
    rng = np.random.default_rng(seed)
    lengths = lengths or [3 + row % 6 for row in range(SERIES)]
    frames = [
        pd.DataFrame(
            {
                "series": f"s{row}",
                "t": np.arange(steps),
                "a": rng.normal(10, 2, steps),
                "b": rng.normal(-5, 1, steps),
                "label": ["no", "yes"][row % 2],
            }
        )
        for row, steps in enumerate(lengths)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., DataSpec]:
    def make(frame: pd.DataFrame, kind: str = "csv", **section: Any) -> DataSpec:
        path = tmp_path / f"series.{kind}"
        frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
        source = {
            "type": "sequences",
            "path": path.name,
            "id": "series",
            "time": "t",
            "values": ["a", "b"],
            "target": "label",
            **section.pop("source", {}),
        }
        return DataSpec.model_validate({"source": source, **section})

    return make


@pytest.fixture
def load(spec: Callable[..., DataSpec], tmp_path: Path) -> Load:
    return lambda *args, **section: load_source(spec(*args, **section), tmp_path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_series_are_padded_after_their_last_step(load: Load, kind: str) -> None:
    frame = long_table()
    raw = load(frame, kind)
    assert isinstance(raw.x, np.ndarray)
    assert raw.x.shape == (SERIES, 8, 2)
    assert raw.x.dtype == np.float32
    assert raw.y[:4].tolist() == ["no", "yes", "no", "yes"]
    first = frame[frame["series"] == "s1"]
    np.testing.assert_array_equal(raw.x[1, :4], first[["a", "b"]].to_numpy(np.float32))
    assert np.isnan(raw.x[1, 4:]).all()


def test_the_order_of_rows_is_the_order_of_time(load: Load) -> None:
    frame = long_table()
    whole = load(frame)
    frame["t"] = (pd.Timestamp("2026-01-31") + pd.to_timedelta(frame["t"], "D")).dt.strftime(
        "%Y-%m-%d"
    )
    first = pd.Index(frame.groupby("series", sort=False).head(1).index)
    others = frame.index.difference(first)
    shuffled = frame.loc[[*first, *np.random.default_rng(1).permutation(others)]]
    np.testing.assert_array_equal(load(shuffled).x, whole.x)


def test_longer_series_keep_their_last_steps(load: Load) -> None:
    whole, cut = load(long_table()), load(long_table(), source={"length": 3})
    assert isinstance(whole.x, np.ndarray)
    np.testing.assert_array_equal(cut.x[0], whole.x[0, :3])
    np.testing.assert_array_equal(cut.x[5], whole.x[5, 5:8])


@pytest.mark.parametrize("names", [range(100, 100 + SERIES), [f"{n:03d}" for n in range(SERIES)]])
def test_ids_of_any_kind(load: Load, names: Any) -> None:
    frame = long_table()
    frame["series"] = frame["series"].map(dict(zip(frame["series"].unique(), names, strict=True)))
    assert len(load(frame, "parquet").y) == SERIES


def test_labels_in_a_second_table(load: Load, tmp_path: Path) -> None:
    frame = long_table()
    labels = frame.groupby("series")[["label"]].first().reset_index()
    labels["fold"] = ["train", "validation", "test", "train"] * (SERIES // 4)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    bare = frame.drop(columns="label")
    raw = load(bare, source={"targets": "labels.csv"}, split={"column": "fold"})
    assert raw.y.tolist() == load(frame).y.tolist()
    assert set(raw.columns["fold"]) == {"train", "validation", "test"}
    labels[1:].to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"labels\.csv has no row for 1 of 20 series.*'s0'"):
        load(bare, source={"targets": "labels.csv"})
    labels.replace({"s0": "00s0"}).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"is 's0'; it has '00s0': write the ids alike"):
        load(bare, source={"targets": "labels.csv"})
    pd.concat([labels, labels[:1]]).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"labels\.csv has two rows for series 's0'"):
        load(bare, source={"targets": "labels.csv"})


def test_ids_keep_their_zeros(load: Load, tmp_path: Path) -> None:
    """One file has digits only, and in the other one a text makes texts of all of them."""
    frame = long_table()
    digits = {name: f"{int(name[1:]):03}" for name in frame["series"].unique()}
    frame["series"] = frame["series"].map(digits)
    labels = frame.groupby("series")[["label"]].first().reset_index()
    more = pd.DataFrame({"series": ["A1"], "label": ["no"]})
    pd.concat([labels, more]).to_csv(tmp_path / "labels.csv", index=False)
    raw = load(frame.drop(columns="label"), source={"targets": "labels.csv"})
    assert raw.y.tolist() == load(frame).y.tolist()
    ids, _ = read_series(tmp_path / "series.csv", raw.form)
    assert ids[:2] == ["000", "001"]
    frame["series"] = frame["series"].astype(int)
    load(frame)
    assert read_series(tmp_path / "series.csv", raw.form)[0][:2] == [0, 1]


def test_what_is_forecast_are_numbers(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    frame = long_table([60, 50])
    frame["a"] = frame["t"] % 3 == 0
    data = spec(frame.astype({"a": int}), **forecasts(horizon=2))
    signature = open_search_data(data, tmp_path).signature
    assert (signature.task, signature.num_outputs) == ("regression", 2)


def test_values_that_float32_merges(load: Load) -> None:
    frame = long_table()
    frame["a"] = 1_700_000_000 + 10 * np.arange(len(frame))
    for section in ({}, forecasts(window=2, horizon=1)):
        assert any("column 'a' has" in words for words in load(frame, **section).warnings)


def test_files_of_their_own_may_use_the_same_ids(load: Load, tmp_path: Path) -> None:
    long_table([9, 2], seed=5).to_csv(tmp_path / "late.csv", index=False)
    raw = load(long_table(), split={"test": "late.csv"})
    assert raw.parts is not None
    assert raw.parts.tolist() == [""] * SERIES + ["test"] * 2
    assert isinstance(raw.x, np.ndarray)
    assert raw.x.shape == (SERIES + 2, 9, 2)


def test_split_columns_are_constant_within_a_series(load: Load) -> None:
    frame = long_table()
    frame["patient"] = frame["series"].str[:2]
    raw = load(frame, split={"group": "patient"})
    assert len(raw.columns["patient"]) == SERIES
    with pytest.raises(DataError, match="the column 't' changes within a series"):
        load(frame, split={"time": "t"})


def spoil(frame: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    frame = frame.astype({column: object}) if isinstance(value, str) else frame
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (4, "label", "no", "'label' changes within a series: it is 'yes' in series 's1' at time 0"),
        (4, "a", np.nan, r"'a' is missing in series 's1' at time 1.*preprocess\.missing"),
        (6, "b", np.nan, "'b' is missing in series 's1' at time 3"),
        (4, "a", "high", "'a' should be numeric, but is 'high' in series 's1' at time 1"),
        (4, "a", np.inf, r"'a' should be numeric, but is inf in series 's1' at time 1; 1 of"),
        (4, "b", 1e39, r"'b' should be numeric, but is 1e\+39 in .* beyond 1e\+37"),
        (4, "t", 0, r"series 's1' at time 0\.?0? has two rows.*Is 'series' the column"),
        (4, "t", np.nan, "column 't' is missing in row 4"),
        (4, "t", "soon", "the time 't' is 'soon' in row 4"),
        (4, "series", np.nan, "column 'series' is missing in row 4"),
    ],
)
def test_rows_that_are_refused(load: Load, row: int, column: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(spoil(long_table(), row, column, value))


def test_a_series_without_a_label(load: Load) -> None:
    frame = long_table()
    frame.loc[frame["series"] == "s3", "label"] = None
    with pytest.raises(DataError, match=r"'label' is missing for 1 of 20 series.*'s3'"):
        load(frame)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"id": "serie"}, "no column 'serie'.*Did you mean 'series'"),
        ({"time": "time"}, "no column 'time'"),
        ({"values": ["a", "c"]}, "no column 'c'"),
        ({"values": ["a", "label"]}, "'label' is the target or splits; leave it out of `values`"),
        ({"path": "none.csv"}, "data file not found"),
    ],
)
def test_columns_and_files_that_are_not_there(
    load: Load, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(long_table(), source=source)


def test_a_parquet_file_that_is_cut_off(load: Load, tmp_path: Path) -> None:
    load(long_table(), "parquet")
    whole = (tmp_path / "series.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.parquet can't be read as a table"):
        load(long_table(), source={"path": "cut.parquet"})


def test_a_table_without_rows(load: Load) -> None:
    with pytest.raises(DataError, match="expected at least one row"):
        load(long_table()[:0])


def test_too_few_series(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    data = spec(long_table([3] * 9))
    with pytest.raises(DataError, match="the data has 9 series; expected at least 10"):
        open_search_data(data, tmp_path)


def test_normalized_without_padding_and_masked(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    data = spec(long_table(), preprocess={"normalize": "standard"})
    opened = open_search_data(data, tmp_path)
    signature = opened.signature
    assert signature.input_shape == (None, 2)
    assert signature.mask_value == -1000
    assert signature.task == "binary"
    train = opened.train.x
    assert isinstance(train, np.ndarray)
    real = train[(train != -1000).any(axis=-1)]
    assert len(real) == np.isfinite(open_raw_part(data, tmp_path, "train").x[..., 0]).sum()
    np.testing.assert_allclose(real.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(real.std(axis=0), 1, rtol=1e-5)
    assert type(signature).from_json(signature.to_json()) == signature


def test_series_of_one_length_have_no_mask(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    signature = open_search_data(spec(long_table([5] * 12)), tmp_path).signature
    assert signature.input_shape == (5, 2)
    assert signature.mask_value is None


def test_series_of_a_single_step(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    signature = open_search_data(spec(long_table([1] * 12)), tmp_path).signature
    assert signature.input_shape == (1, 2)
    mixed = open_search_data(spec(long_table([1, 4] * 8)), tmp_path)
    assert mixed.signature.input_shape == (None, 2)


def test_the_mask_lies_below_data_that_is_not_normalized(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    frame = long_table()
    frame["a"] *= -1e4
    signature = open_search_data(spec(frame), tmp_path).signature
    assert signature.mask_value is not None
    assert signature.mask_value < frame["a"].min() * 10


def test_missing_values_are_no_padding(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    frame = spoil(spoil(long_table(), 4, "a", np.nan), 4, "b", np.nan)
    filled = open_search_data(spec(frame, preprocess={"missing": "mean"}), tmp_path)
    raw = open_raw_part(spec(frame, preprocess={"missing": "mean"}), tmp_path, "train")
    whole = filled.preprocessing.apply(raw.x)
    assert isinstance(whole, np.ndarray)
    assert np.isfinite(whole).all()
    dropped = open_search_data(spec(frame, preprocess={"missing": "drop"}), tmp_path)
    assert sum(dropped.signature.rows) == SERIES - 1
    assert any("1 of 20 series have values missing" in w for w in dropped.signature.warnings)
    frame["b"] = np.nan
    with pytest.raises(DataError, match="every series has values missing"):
        open_search_data(spec(frame, preprocess={"missing": "drop"}), tmp_path)
    windows = spec(frame, preprocess={"missing": "drop"}, **forecasts(window=2, horizon=1))
    with pytest.raises(DataError, match="every window has values missing"):
        open_search_data(windows, tmp_path)


def test_numbers_as_targets(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    frame = long_table()
    frame["label"] = frame["series"].str[1:].astype(float) / 7
    signature = open_search_data(spec(frame), tmp_path).signature
    assert (signature.task, signature.num_outputs) == ("regression", 1)


def test_padded_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 6, 2))
    x[::2, 4:] = np.nan
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(30) % 3)
    source = {"type": "npz", "path": "data.npz"}

    def opened(**section: Any) -> Any:
        preprocess = {"mask": True, **section}
        data = DataSpec.model_validate({"source": source, "preprocess": preprocess})
        return open_search_data(data, tmp_path)

    assert opened().signature.input_shape == (None, 2)
    assert opened(normalize="minmax").signature.mask_value == -1000
    assert opened(missing="mean").signature.form == {"type": "arrays", "mask": True, "gaps": True}
    with pytest.raises(DataError, match="sequences have lengths"):
        opened(reshape=[12])
    x[1, 2, 0] = np.nan
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(30) % 3)
    with pytest.raises(DataError, match="row 1 has a number missing at step 2, feature 0"):
        opened()
    assert sum(opened(missing="drop").signature.rows) == 29
    x[3] = np.nan
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(30) % 3)
    with pytest.raises(DataError, match=r"the sequence in row 3.* has no step"):
        opened(missing="mean")
    np.savez(tmp_path / "data.npz", x=x[:, 0], y=np.arange(30) % 3)
    with pytest.raises(DataError, match=r"one array \(rows, steps, features\); x has shape"):
        opened(missing="mean")


def forecasts(**source: Any) -> dict[str, Any]:
    return {"source": {"target": "a", "window": 4, "horizon": 2, **source}}


def test_windows(load: Load) -> None:
    frame = long_table([60, 50, 5])
    raw = load(frame, **forecasts(target=["a", "b"]))
    assert isinstance(raw.x, np.ndarray)
    assert raw.x.shape[1:] == (4, 2)
    assert raw.y.shape[1:] == (4,)
    a = frame["a"].to_numpy(np.float32)
    np.testing.assert_array_equal(raw.x[0, :, 0], a[:4])
    np.testing.assert_array_equal(raw.y[0], frame[["a", "b"]].to_numpy(np.float32)[4:6].ravel())
    assert any("1 of 3 series have fewer than 6 steps" in words for words in raw.warnings)
    fewer = load(frame, **forecasts(stride=3))
    np.testing.assert_array_equal(fewer.x[1, :, 0], a[3:7])


def test_nothing_of_the_future_is_in_the_past(load: Load) -> None:
    """The values say when they were, so each window tells its own times."""
    frame = long_table([80, 60, 70])
    frame.loc[frame["series"] == "s1", "t"] += 15
    frame["a"] = frame["t"] + 1.0
    raw = load(frame.sample(frac=1, random_state=3), **forecasts(horizon=5))
    assert raw.parts is not None
    seen = {part: raw.y[raw.parts == part] for part in ("train", "validation", "test")}
    assert sum(map(len, seen.values())) == len(raw.y)
    assert seen["train"].max() < seen["validation"].min()
    assert seen["validation"].max() < seen["test"].min()
    assert isinstance(raw.x, np.ndarray)
    assert raw.x[raw.parts == "train"][..., 0].max() < seen["validation"].min()
    every = sum(steps - 4 - 5 + 1 for steps in (80, 60, 70))
    assert len(raw.y) < every
    assert len(seen["test"]) == pytest.approx(0.2 * every, abs=6)


def test_windows_and_what_is_missing(load: Load) -> None:
    frame = spoil(long_table([60]), 30, "b", np.nan)
    with pytest.raises(DataError, match="'b' is missing in series 's0' at time 30"):
        load(frame, **forecasts())
    every = load(long_table([60]), **forecasts())
    dropped = load(frame, preprocess={"missing": "drop"}, **forecasts())
    assert len(dropped.y) < len(every.y)
    assert np.isfinite(np.asarray(dropped.x)).all()
    filled = load(frame, preprocess={"missing": "median"}, **forecasts())
    assert np.isnan(np.asarray(filled.x)).any()
    with pytest.raises(DataError, match="'a' is missing in series 's0' at time 12"):
        load(spoil(frame, 12, "a", np.nan), preprocess={"missing": "mean"}, **forecasts())


def test_steps_that_are_left_out_are_told(load: Load) -> None:
    frame = long_table([60]).drop(index=[20, 21])
    assert any(
        "1 of 57 steps are longer than usual, the first after series 's0' at time 19" in words
        for words in load(frame, **forecasts()).warnings
    )
    frame["t"] = pd.date_range("2024-01-31", periods=58, freq="ME").strftime("%Y-%m-%d")
    assert not load(frame, **forecasts()).warnings


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({**forecasts(), "split": {"group": "label"}}, "windows are split by time"),
        ({**forecasts(), "split": {"test": "late.csv"}}, "windows are split by time"),
        ({**forecasts(), "preprocess": {"mask": True}}, r"leave out `preprocess\.mask`"),
        (forecasts(window=60), r"no series has 60 \+ 2 steps.*the longest has 40"),
        (forecasts(window=30, horizon=9), "can't be cut|reaches beyond it"),
        (forecasts(target="c"), "no column 'c'"),
    ],
)
def test_windows_that_are_refused(load: Load, section: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(long_table([40]), **section)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"window": 4}, "horizon is missing"),
        ({"horizon": 4}, "window is missing"),
        ({"stride": 2}, "stride belongs to"),
        ({"window": 4, "horizon": 1, "length": 3}, "there is no length"),
    ],
)
def test_settings_that_contradict_each_other(source: dict[str, Any], message: str) -> None:
    plain = {"type": "sequences", "path": "s.csv", "id": "i", "time": "t", "values": ["a"]}
    with pytest.raises(ValueError, match=message):
        DataSpec.model_validate({"source": {**plain, "target": "y", **source}})


def test_equal_series_make_an_equal_fingerprint(
    spec: Callable[..., DataSpec], tmp_path: Path
) -> None:
    one = open_search_data(spec(long_table()), tmp_path).signature.fingerprint
    assert open_search_data(spec(long_table(), "parquet"), tmp_path).signature.fingerprint == one
    other = open_search_data(spec(long_table(seed=1)), tmp_path).signature.fingerprint
    assert other != one


def test_padding_is_not_reported_as_missing(spec: Callable[..., DataSpec], tmp_path: Path) -> None:
    from hpo.data.report import report_data

    frame = spoil(long_table(), 4, "a", np.nan)
    report = report_data(spec(frame, preprocess={"missing": "mean"}), tmp_path, tmp_path / "plots")
    missing = {column.name: column.missing for column in report.columns}
    assert missing["b"] == 0
    assert missing["a"] in (0, 1)
    windows = report_data(spec(long_table([60]), **forecasts()), tmp_path, None)
    assert [column.shape for column in windows.columns] == [(4,), (4,)]
