"""Arrays that take long to make, kept in a folder of the machine and shared by its processes.

An array out of the cache is mapped from its file and read-only. The processes that open it share
its memory, which the kernel takes back where it runs short: the file may be larger than the memory.
Without a folder that can be written to, each process makes its own in memory.

An entry that no process has opened for 30 days is removed when a new one is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from hpo.data.features import Array
from hpo.data.rowsfile import RowsFile

Notes = dict[int, str]
T = TypeVar("T")

_UNUSED_SECONDS = 30 * 24 * 3600
# The folder may be one that others use too.
_OURS = re.compile(r"\.?(images|prepared|rows)-.*\.(npy|json)")


def cached_array(name: str, make: Callable[[], tuple[Array, Notes]]) -> tuple[Array, Notes]:
    """What `make` returns, from the cache folder when it is there, else made and put there.

    Args:
        name: Says everything that the array depends on, a hash for example.
    """
    made: list[tuple[Array, Notes]] = []

    def load(folder: Path) -> tuple[Array, Notes] | None:
        array, notes = open_mapped(folder / f"{name}.npy"), _read_notes(folder / f"{name}.json")
        return None if array is None or notes is None else (array, notes)

    def write(file: IO[bytes], folder: Path) -> None:
        made.append(make())
        array, notes = made[0]
        # The notes first, because the array is what readers look for.
        beside = folder / f".{name}.json"
        beside.write_text(json.dumps(notes))
        beside.replace(folder / f"{name}.json")
        np.save(file, array, allow_pickle=False)

    entry = _entry(f"{name}.npy", load, write)
    if entry is not None:
        return entry
    return made[0] if made else make()


def cached_rows(name: str, make: Callable[[], Iterable[Array]]) -> Array:
    """The chunks of rows that `make` yields as one array, written chunk by chunk the first time.

    Args:
        name: Says everything that the rows depend on.
    """

    def write(file: IO[bytes], _: Path) -> None:
        rows = RowsFile(file)
        for chunk in make():
            rows.add(chunk)
        rows.finish()

    entry = _entry(f"{name}.npy", lambda folder: open_mapped(folder / f"{name}.npy"), write)
    return np.concatenate(list(make())) if entry is None else entry


def cache_folder() -> Path | None:
    """HPO_CACHE, or ~/.cache/keras-hpo; None for a user without a home."""
    given = os.environ.get("HPO_CACHE")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache" / "keras-hpo"
    except RuntimeError:
        return None


def open_mapped(file: Path) -> Array | None:
    """The array of an entry; None where there is none, or one that was cut off."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        array: Array = np.load(file, mmap_mode="r", allow_pickle=False)
        _mark_used(file)
        return array.view(np.ndarray)
    return None


def remove_unused(folder: Path) -> None:
    """Removes the entries that no process has opened for long."""
    oldest = time.time() - _UNUSED_SECONDS
    # Another process may remove them too.
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            if _OURS.fullmatch(file.name) and file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)


def _read_notes(file: Path) -> Notes | None:
    with contextlib.suppress(OSError, ValueError):
        notes = json.loads(file.read_text())
        _mark_used(file)
        return {int(index): text for index, text in notes.items()}
    return None


def _mark_used(file: Path) -> None:
    # The time of the last access is not kept on every disk.
    with contextlib.suppress(OSError):
        os.utime(file)


def _entry(
    name: str,
    load: Callable[[Path], T | None],
    write: Callable[[IO[bytes], Path], None],
) -> T | None:
    """What `load` finds in the cache folder, after `write` where it finds nothing.

    None without a folder that can be written to.
    """
    folder = cache_folder()
    if folder is None:
        return None
    found = load(folder)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}"
        with _locked(temporary) as file:
            # Another process may have made it while this one waited.
            found = load(folder)
            if found is not None:
                return found
            write(file, folder)
            os.fsync(file.fileno())
            temporary.replace(folder / name)
        remove_unused(folder)
    except OSError:
        return None
    return load(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """An empty file that one process has at a time; it is removed again unless it was renamed.

    So one process makes an entry, and the others wait for it instead of making it too.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Renamed or removed by the process that this one has waited for.
            if not _is_at(path, file):
                continue
            file.truncate(0)
            try:
                yield file
            finally:
                if _is_at(path, file):
                    path.unlink()
            return


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
