"""Arrays that take long to make, kept in a folder of the machine and shared by its processes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpo.data.features import Array

Notes = dict[int, str]


def cached_array(name: str, make: Callable[[], tuple[Array, Notes]]) -> tuple[Array, Notes]:
    """What `make` returns, from the cache folder when it is there, else made and put there.

    An array out of the cache is read-only; processes that open it share its memory. Without a
    folder that can be written to, each of them makes its own.

    Args:
        name: Says everything that the array depends on, a hash for example.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    return _load(folder, name) or _save(folder, name, *make())


def cache_folder() -> Path | None:
    """HPO_CACHE, or ~/.cache/keras-hpo; None for a user without a home."""
    given = os.environ.get("HPO_CACHE")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache" / "keras-hpo"
    except RuntimeError:
        return None


def _load(folder: Path, name: str) -> tuple[Array, Notes] | None:
    # A file that was cut off, by a full disk or a crash of the machine, is made again.
    with contextlib.suppress(OSError, ValueError, EOFError):
        notes = json.loads((folder / f"{name}.json").read_text())
        array: Array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array.view(np.ndarray), {int(index): text for index, text in notes.items()}
    return None


def _save(folder: Path, name: str, array: Array, notes: Notes) -> tuple[Array, Notes]:
    """Writes beside and renames; the notes first, because the array is what readers look for."""
    temporary = folder / f".{name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(notes))
        temporary.replace(folder / f"{name}.json")
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.replace(folder / f"{name}.npy")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return array, notes
    return _load(folder, name) or (array, notes)
