"""The machine's cache: made once, shared, whole or not there, bounded."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from hpo.data.cache import cached_array, cached_rows
from hpo.data.chunks import LARGE
from hpo.data.joined import JoinedRows

CHUNKS = 6
PROCESSES = 4
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("HPO_CACHE", str(folder))
    return folder


def numbers(seed: int = 0) -> Iterator[np.ndarray]:
    """Together 24 MB of float32: more than LARGE."""
    rng = np.random.default_rng(seed)
    for _ in range(CHUNKS):
        yield rng.random((10_000, 100), dtype=np.float32)


def no_chunks() -> Iterator[np.ndarray]:
    raise AssertionError("it was in the cache")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_are_written_once_and_mapped(cache: Path) -> None:
    expected = np.concatenate(list(numbers()))
    first, second = cached_rows("rows-a", numbers), cached_rows("rows-a", no_chunks)
    for array in (first, second):
        np.testing.assert_array_equal(array, expected, strict=True)
        assert not array.flags.writeable
        # What TensorFlow takes without a copy.
        assert array.ctypes.data % 64 == 0
    assert files(cache) == ["rows-a.npy"]
    np.testing.assert_array_equal(np.load(cache / "rows-a.npy"), expected)


def test_a_file_that_was_cut_off_is_made_again(cache: Path) -> None:
    cached_rows("rows-a", numbers)
    with (cache / "rows-a.npy").open("r+b") as file:
        file.truncate(LARGE)
    np.testing.assert_array_equal(cached_rows("rows-a", numbers), np.concatenate([*numbers()]))


def _open(folder: str, together: Barrier) -> None:
    os.environ["HPO_CACHE"] = folder
    log = Path(folder).with_name("log")

    def make() -> Iterator[np.ndarray]:
        with log.open("a") as file:
            file.write("made\n")
        return numbers()

    together.wait()
    array = cached_rows("rows-a", make)
    with log.open("a") as file:
        file.write(f"{float(array.sum(dtype=np.float64))}\n")
    # All have it open now: one file for all of them, or several under one name.
    together.wait()
    maps = Path("/proc/self/maps").read_text().splitlines()
    inodes = {line.split()[4] for line in maps if "rows-a" in line}
    with log.open("a") as file:
        file.write(f"{inodes}\n")


@pytest.mark.slow
def test_processes_at_once_make_it_once_and_share_the_file(cache: Path) -> None:
    together = SPAWN.Barrier(PROCESSES)
    processes = [SPAWN.Process(target=_open, args=(str(cache), together)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    lines = cache.with_name("log").read_text().splitlines()
    made, sums, inodes = lines[:1], set(lines[1 : PROCESSES + 1]), set(lines[PROCESSES + 1 :])
    assert (made, len(sums)) == (["made"], 1)
    assert inodes == {str({str((cache / "rows-a.npy").stat().st_ino)})}
    assert files(cache) == ["rows-a.npy"]


def _die(folder: str) -> None:
    os.environ["HPO_CACHE"] = folder

    def make() -> Iterator[np.ndarray]:
        yield next(numbers())
        os._exit(9)

    cached_rows("rows-a", make)


def test_a_process_that_dies_while_it_writes_leaves_nothing_in_the_way(cache: Path) -> None:
    process = SPAWN.Process(target=_die, args=(str(cache),))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert files(cache) == [".rows-a.npy"]
    np.testing.assert_array_equal(cached_rows("rows-a", numbers), np.concatenate([*numbers()]))
    assert files(cache) == ["rows-a.npy"]


def test_an_error_while_rows_are_made_leaves_nothing(cache: Path) -> None:
    def make() -> Iterator[np.ndarray]:
        yield next(numbers())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached_rows("rows-a", make)
    assert files(cache) == []


def test_without_a_folder_rows_are_in_memory(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    array = cached_rows("rows-a", numbers)
    np.testing.assert_array_equal(array, np.concatenate([*numbers()]))
    rows = JoinedRows()
    for chunk in numbers():
        rows.add(chunk)
    np.testing.assert_array_equal(rows.join(), array, strict=True)


def test_on_a_full_disk_rows_are_in_memory(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(small_disk))
    expected = np.concatenate([*numbers()])
    np.testing.assert_array_equal(cached_rows("rows-a", numbers), expected)
    rows = JoinedRows()
    for chunk in numbers():
        rows.add(chunk)
    np.testing.assert_array_equal(rows.join(), expected, strict=True)
    del rows
    assert files(small_disk) == []


def test_rows_that_come_one_after_the_other_are_named_by_their_content(cache: Path) -> None:
    joined = []
    for seed in (0, 0, 1):
        rows = JoinedRows()
        for chunk in numbers(seed):
            rows.add(chunk)
        joined.append(rows.join())
        del rows
    for array, seed in zip(joined, (0, 0, 1), strict=True):
        np.testing.assert_array_equal(array, np.concatenate([*numbers(seed)]), strict=True)
    assert len(files(cache)) == 2


def test_few_rows_touch_no_disk(cache: Path) -> None:
    rows = JoinedRows()
    # Of several types, which become one for all.
    rows.add(np.arange(4, dtype=np.int32)[:, None])
    rows.add(np.array([[0.5]], np.float32))
    array = rows.join()
    assert (array[:, 0].tolist(), array.dtype) == ([0, 1, 2, 3, 0.5], np.float64)
    assert not cache.exists()


def test_many_rows_must_be_of_one_type(cache: Path) -> None:
    rows = JoinedRows()
    for chunk in numbers():
        rows.add(chunk)
    with pytest.raises(ValueError, match=r"rows of int64 and shape \(2,\) come after rows of floa"):
        rows.add(np.zeros((3, 2), np.int64))
    del rows
    assert files(cache) == []


def test_what_nobody_has_opened_for_a_month_is_removed(cache: Path) -> None:
    cached_array("images-old", lambda: (np.arange(3), {1: "no picture"}))
    cached_rows("prepared-old", lambda: [np.arange(3)])
    cached_rows("prepared-used", lambda: [np.arange(3)])
    (cache / ".rows-killed.npy").touch()
    (cache / "notes-of-mine.npy").touch()
    days = 31 * 24 * 3600
    for path in cache.iterdir():
        os.utime(path, (time.time() - days, time.time() - days))
    cached_rows("prepared-used", no_chunks)
    assert len(files(cache)) == 6
    cached_rows("prepared-new", lambda: [np.arange(3)])
    assert files(cache) == ["notes-of-mine.npy", "prepared-new.npy", "prepared-used.npy"]
