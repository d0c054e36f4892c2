"""Opened data from process to process: the same arrays, mapped, or opened where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpo.data import SearchData, open_search_data
from hpo.data.chunks import LARGE
from hpo.data.sharing import SharedData, open_shared_data
from hpo.spec.models import DataSpec
from tests.data.conftest import Save

LOAD = """
import numpy as np

def load():
    with open("calls", "a") as file:
        file.write("x")
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 3)), np.arange(40) % 2
"""


def check_equal(found: SearchData | None, opened: SearchData) -> None:
    assert found is not None
    assert found.signature == opened.signature
    for mine, theirs in ((found.train, opened.train), (found.validation, opened.validation)):
        np.testing.assert_array_equal(mine.y, theirs.y, strict=True)
        if isinstance(theirs.x, dict):
            assert isinstance(mine.x, dict)
            assert list(mine.x) == list(theirs.x)
            for name, array in theirs.x.items():
                np.testing.assert_array_equal(mine.x[name], array, strict=True)
        else:
            np.testing.assert_array_equal(mine.x, theirs.x, strict=True)


def contents(shared: Path) -> list[Path]:
    return list(shared.glob("data/*"))


def test_what_one_leaves_another_takes(
    save: Save, table: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    data = save(*table, preprocess={"normalize": "standard"})
    opened = open_search_data(data, tmp_path)
    shared = SharedData(tmp_path / "shared", data)
    fingerprint = opened.signature.fingerprint
    assert shared.take(fingerprint) is None
    for _ in range(2):
        shared.leave(opened)
    found = shared.take(fingerprint)
    check_equal(found, opened)
    assert found is not None
    assert found.preprocessing is None
    assert len(contents(tmp_path / "shared")) == 1
    assert shared.take("another") is None
    other = DataSpec.model_validate(data.model_dump() | {"task": "regression"})
    assert SharedData(tmp_path / "shared", other).take(fingerprint) is None


def test_what_a_process_writes_into_its_rows_stays_there(
    save: Save, table: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    data = save(*table)
    opened = open_search_data(data, tmp_path)
    shared = SharedData(tmp_path / "shared", data)
    shared.leave(opened)
    found = shared.take(opened.signature.fingerprint)
    assert found is not None
    assert isinstance(found.train.x, np.ndarray)
    found.train.x[:] = -1
    check_equal(shared.take(opened.signature.fingerprint), opened)


def test_several_inputs_keep_their_names_and_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"b": rng.normal(size=(40, 2)), "a/c": rng.normal(size=(40, 3, 1))}
    for index, array in enumerate(arrays.values()):
        np.save(tmp_path / f"{index}.npy", array)
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    source = {"type": "npy", "x": {"b": "0.npy", "a/c": "1.npy"}, "y": "y.npy"}
    data = DataSpec.model_validate({"source": source})
    opened = open_search_data(data, tmp_path)
    shared = SharedData(tmp_path / "shared", data)
    shared.leave(opened)
    check_equal(shared.take(opened.signature.fingerprint), opened)


def test_large_rows_are_not_written_again(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    rows = LARGE // 400 * 2
    x = np.random.default_rng(0).random((rows, 100), dtype=np.float32)
    data = save(x, np.arange(rows) % 2)
    opened = open_search_data(data, tmp_path)
    shared = SharedData(tmp_path / "shared", data)
    shared.leave(opened)
    check_equal(shared.take(opened.signature.fingerprint), opened)
    size = sum(file.lstat().st_size for file in (tmp_path / "shared").rglob("*.npy"))
    assert size < LARGE
    for file in (tmp_path / "cache").glob("prepared-*"):
        file.unlink()
    assert shared.take(opened.signature.fingerprint) is None


@pytest.mark.parametrize("file", ["contents.json", "train-0.npy", "validation-1.npy"])
def test_what_was_damaged_is_not_taken(
    file: str, save: Save, table: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    data = save(*table)
    fingerprint = open_shared_data(data, tmp_path, tmp_path / "shared", None).signature.fingerprint
    (folder,) = contents(tmp_path / "shared")
    (folder / file).write_bytes((folder / file).read_bytes()[:20])
    assert SharedData(tmp_path / "shared", data).take(fingerprint) is None
    opened = open_shared_data(data, tmp_path, tmp_path / "shared", fingerprint)
    assert opened.preprocessing is not None


def test_without_a_folder_everybody_opens(
    save: Save, table: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    data = save(*table)
    (tmp_path / "file").touch()
    opened = open_shared_data(data, tmp_path, tmp_path / "file", None)
    again = open_shared_data(data, tmp_path, tmp_path / "file", opened.signature.fingerprint)
    check_equal(again, opened)


def test_a_source_in_files_is_left_and_a_function_s_is_not(
    save: Save,
    table: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared_source.py").write_text(LOAD)
    function = DataSpec.model_validate({"source": {"type": "python", "load": "shared_source:load"}})
    shared = tmp_path / "shared"
    first = open_shared_data(function, tmp_path, shared, None)
    open_shared_data(function, tmp_path, shared, first.signature.fingerprint)
    assert (tmp_path / "calls").read_text() == "xx"
    assert contents(shared) == []
    SharedData(shared, function).leave(first)
    open_shared_data(function, tmp_path, shared, first.signature.fingerprint)
    assert (tmp_path / "calls").read_text() == "xx"
    data = save(*table)
    opened = open_shared_data(data, tmp_path, shared, None)
    (tmp_path / "data.npz").unlink()
    check_equal(open_shared_data(data, tmp_path, shared, opened.signature.fingerprint), opened)
