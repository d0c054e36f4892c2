"""Data above the size that is held in memory: the same numbers, out of mapped files.

All data here is generated.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.data import Part, SearchData, open_search_data
from hpo.data.checks import check_features, check_finite
from hpo.data.chunks import LARGE, chunks
from hpo.data.features import each_array
from hpo.data.leaks import rows_on_two_sides
from hpo.data.preprocessing import fit_preprocessing, fit_sequences
from hpo.data.signature import fingerprint_of
from hpo.data.sources import load_source
from hpo.data.splits import SplitRows
from hpo.errors import DataError
from hpo.spec.models import DataSpec, Preprocess

ROWS = 6000
Open = Callable[..., SearchData]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """24 MB of float32 in columns of different scale, one of them constant."""
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, 1000), dtype=np.float32) * np.float32(10) ** np.arange(-4, 6).repeat(100)
    x[:, 7] = 3
    assert x.astype(np.float32).nbytes > LARGE
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def files(x: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    np.save(folder / "x.npy", x)
    np.save(folder / "pictures.npy", (x[:, :768].reshape(ROWS, 16, 16, 3) % 256).astype(np.uint8))
    np.save(folder / "y.npy", np.arange(ROWS) % 3)
    np.save(folder / "values.npy", x[:, 8:908].astype(np.float32))
    return folder


@pytest.fixture
def open_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens data twice, without and with a cache, and sees to it that all numbers are equal."""

    def opened(data: dict[str, Any], project: Path) -> SearchData:
        spec = DataSpec.model_validate(data)
        no_folder = tmp_path / "no folder"
        no_folder.touch()
        monkeypatch.setenv("HPO_CACHE", str(no_folder))
        expected = open_search_data(spec, project)
        monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
        for _ in range(2):
            found = open_search_data(spec, project)
            assert found.signature == expected.signature
            for part, other in (
                (found.train, expected.train),
                (found.validation, expected.validation),
            ):
                for array, wanted in zip(arrays(part), arrays(other), strict=True):
                    np.testing.assert_array_equal(array, wanted, strict=True)
                    assert not is_mapped(wanted)
        return found

    return opened


def arrays(part: Part) -> list[np.ndarray]:
    return [*each_array(part.x), part.y]


def is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def test_chunks_are_the_rows_in_order(x: np.ndarray) -> None:
    rows = np.random.default_rng(1).permutation(ROWS)[:5000]
    for chosen, expected in ((None, x), (rows, x[rows])):
        found = list(chunks(x, chosen))
        assert len(found) > 4
        np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in found]), expected)
        assert all(
            np.array_equal(expected[where], chunk) and chunk.nbytes <= LARGE // 4
            for where, chunk in found
        )
    assert len(list(chunks(x[:2000]))) == 1


def test_the_first_number_that_is_wrong_is_named(x: np.ndarray) -> None:
    wrong = x.copy()
    wrong[[4000, 5000], [3, 5]] = np.nan, np.inf
    with pytest.raises(DataError, match=r"2 of 6000000 values .* nan at row 4000, index 3,"):
        check_finite(wrong, "x")
    with pytest.raises(DataError, match=r"1 of 6000000 values .* inf at row 5000, index 5,"):
        check_features(wrong, gaps=True)


def test_the_fingerprint_does_not_depend_on_chunks(x: np.ndarray) -> None:
    digest = hashlib.sha256(b"[]")
    digest.update(b"<f4(6000, 1000)")
    digest.update(x.tobytes())
    for stored in (x, x.astype(">f4"), np.asfortranarray(x)):
        assert fingerprint_of([stored], []) == digest.hexdigest()[:16]


def test_equal_rows_are_found_in_any_chunk(x: np.ndarray) -> None:
    repeated = x.copy()
    repeated[5900] = repeated[10]
    rows = np.arange(ROWS)
    split = SplitRows(rows[:5000], rows[5000:5500], rows[5500:])
    (words,) = rows_on_two_sides(repeated, split, None)
    assert words.startswith("1 of 500 test rows have the same features as a row of train")
    assert "row 5900" in words


def test_mean_and_deviation_are_those_of_all_rows(x: np.ndarray) -> None:
    rows = np.random.default_rng(2).permutation(ROWS)[:5000]
    fitted = fit_preprocessing(x, Preprocess(normalize="standard"), rows)
    mean, std = (f(x[rows], axis=0, dtype=np.float64) for f in (np.mean, np.std))
    std[7] = 1
    np.testing.assert_allclose(fitted.offset, mean, rtol=2e-7)
    np.testing.assert_allclose(fitted.scale, 1 / std, rtol=2e-7)


def test_the_range_is_that_of_all_rows(x: np.ndarray) -> None:
    rows = np.arange(5, ROWS)
    fitted = fit_preprocessing(x, Preprocess(normalize="minmax"), rows)
    low, high = (f(x[rows], axis=0).astype(np.float64) for f in (np.min, np.max))
    high[7] = 4
    assert fitted.offset == tuple(low.astype(np.float32).tolist())
    assert fitted.scale == tuple((1 / (high - low)).astype(np.float32).tolist())


def test_median_and_quartiles_are_those_of_evenly_spaced_rows(x: np.ndarray) -> None:
    fitted = fit_preprocessing(x, Preprocess(normalize="robust"))
    low, middle, high = np.percentile(x[::2].astype(np.float64), (25, 50, 75), axis=0)
    spread = high - low
    spread[7] = 1
    np.testing.assert_allclose(fitted.offset, middle, rtol=2e-7)
    np.testing.assert_allclose(fitted.scale, 1 / spread, rtol=2e-7)


@pytest.mark.parametrize("missing", ["mean", "median", "zero"])
def test_what_is_missing_is_filled_in(x: np.ndarray, missing: str) -> None:
    gappy = x.copy()
    gappy[::3, 4] = np.nan
    gappy[:, 9] = np.nan
    fitted = fit_preprocessing(gappy, Preprocess(missing=missing))  # type: ignore[arg-type]
    there = gappy[::2, 4] if missing == "median" else gappy[:, 4]
    expected = {"mean": np.nanmean, "median": np.nanmedian, "zero": lambda _: 0.0}[missing](
        there.astype(np.float64)
    )
    assert fitted.fill[4] == pytest.approx(expected, rel=1e-7)
    assert fitted.fill[9] == 0


def test_padding_counts_for_nothing(x: np.ndarray) -> None:
    series = x.reshape(ROWS // 4, 4, 1000).copy()
    series[::2, 2:] = np.nan
    steps = series[~np.isnan(series).all(axis=-1)]
    fitted = fit_sequences(series, Preprocess(normalize="standard"))
    np.testing.assert_allclose(fitted.offset, steps.mean(axis=0, dtype=np.float64), rtol=2e-7)
    assert fitted.mask_value == -1000


@pytest.mark.parametrize("normalize", ["none", "standard", "robust"])
def test_prepared_rows_are_mapped_and_the_same(
    open_both: Open, files: Path, normalize: str
) -> None:
    source = {"type": "npy", "x": "x.npy", "y": "y.npy"}
    data = open_both(
        {
            "source": source,
            "preprocess": {"normalize": normalize},
            "split": {"validation": 0.1, "test": 0.1},
        },
        files,
    )
    assert [is_mapped(array) for array in arrays(data.train)] == [True, False]
    # Few rows validate.
    assert not is_mapped(data.validation.x)


def test_bytes_become_large_when_they_are_prepared(open_both: Open, files: Path) -> None:
    data = open_both(
        {
            "source": {"type": "npy", "x": {"a": "pictures.npy", "b": "x.npy"}, "y": "y.npy"},
            "preprocess": {"normalize": "minmax"},
        },
        files,
    )
    assert isinstance(data.train.x, dict)
    assert all(is_mapped(array) for array in data.train.x.values())
    assert data.train.x["a"].shape[1:] == (16, 16, 3)


def test_large_targets(open_both: Open, files: Path) -> None:
    source = {"type": "npy", "x": "pictures.npy", "y": "values.npy"}
    data = open_both({"source": source, "split": {"validation": 0.1, "test": 0.1}}, files)
    assert is_mapped(data.train.y)
    assert data.signature.task == "regression"


def test_large_targets_of_another_task(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows, so the same fingerprint, but other targets in the cache."""
    monkeypatch.setattr("hpo.data.prepared.LARGE", 1000)
    source = {"type": "npy", "x": "pictures.npy", "y": "y.npy"}
    specs = [
        DataSpec.model_validate({"source": source, "task": task, "split": {"stratify": False}})
        for task in ("regression", "multiclass")
    ]
    values, labels = (open_search_data(spec, files) for spec in specs)
    assert values.signature.fingerprint == labels.signature.fingerprint
    assert is_mapped(values.train.y)
    assert is_mapped(labels.train.y)
    assert (values.train.y.dtype, labels.train.y.dtype) == (np.float32, np.int64)


def test_rows_with_gaps_may_be_dropped(open_both: Open, x: np.ndarray, tmp_path: Path) -> None:
    gappy = x.copy()
    gappy[::10, 0] = np.nan
    np.save(tmp_path / "x.npy", gappy)
    np.save(tmp_path / "y.npy", np.arange(ROWS) % 3)
    data = open_both(
        {
            "source": {"type": "npy", "x": "x.npy", "y": "y.npy"},
            "preprocess": {"missing": "drop"},
            "split": {"validation": 0.1, "test": 0.05},
        },
        tmp_path,
    )
    assert sum(data.signature.rows) == ROWS * 9 // 10
    assert is_mapped(data.train.x)


def test_rows_that_all_have_gaps_leave_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.full((20, 2), np.nan), y=np.arange(20) % 2)
    data = {"source": {"type": "npz", "path": "data.npz"}, "preprocess": {"missing": "drop"}}
    with pytest.raises(DataError, match="all rows have values missing"):
        open_search_data(DataSpec.model_validate(data), tmp_path)


BATCHES = """
import numpy as np

def load(parts):
    def batches(first):
        for number in range(first, first + 30):
            x = np.random.default_rng(number).random((200, 1000), dtype=np.float32)
            yield x, np.arange(200) % 2
    if parts:
        return {'train': batches(0), 'validation': batches(100), 'test': batches(200)}
    return batches(0)
"""


@pytest.mark.parametrize("parts", [False, True])
def test_batches_of_a_function(open_both: Open, tmp_path: Path, parts: bool) -> None:
    (tmp_path / f"large_batches_{parts}.py").write_text(BATCHES)
    source = {"type": "python", "load": f"large_batches_{parts}:load", "args": {"parts": parts}}
    data = open_both({"source": source, "split": {"validation": 0.1, "test": 0.1}}, tmp_path)
    assert data.signature.rows == ((6000,) * 3 if parts else (4800, 600, 600))
    assert is_mapped(data.train.x)


def test_large_arrays_of_a_zip_file_are_mapped(
    open_both: Open, x: np.ndarray, tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", y=np.arange(ROWS) % 3, x=x, columns=np.asfortranarray(x))
    for name in ("x", "columns"):
        source = {"type": "npz", "path": "data.npz", "x": name}
        spec = DataSpec.model_validate({"source": source})
        raw = load_source(spec, tmp_path)
        assert is_mapped(raw.x)
        np.testing.assert_array_equal(raw.x, x, strict=True)
        open_both({"source": source, "preprocess": {"normalize": "standard"}}, tmp_path)
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[LARGE] ^= 1
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        load_source(DataSpec.model_validate({"source": {**source, "x": "x"}}), tmp_path)


def test_packed_arrays_are_read(x: np.ndarray, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", y=np.arange(ROWS) % 3, x=x * 0)
    source = {"type": "npz", "path": "data.npz"}
    raw = load_source(DataSpec.model_validate({"source": source}), tmp_path)
    assert not is_mapped(raw.x)
    np.testing.assert_array_equal(raw.x, x * 0, strict=True)


def test_a_large_file_of_objects_or_several_arrays_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.arange(10))
    for write, words in (
        (lambda file: np.savez(file, x=np.zeros((10, LARGE // 40))), "holds several arrays"),
        (lambda file: np.save(file, np.full((10, LARGE // 8), None), allow_pickle=True), "objects"),
        (lambda file: file.write(b"\x93NUMPY" + bytes(2 * LARGE)), "not a readable .npy file"),
    ):
        with (tmp_path / "x.npy").open("wb") as file:
            write(file)
        source = {"type": "npy", "x": "x.npy", "y": "y.npy"}
        with pytest.raises(DataError, match=words):
            open_search_data(DataSpec.model_validate({"source": source}), tmp_path)
