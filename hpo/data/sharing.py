"""Search data that one process of a machine has opened, for the others to map.

Opening reads, checks, splits, fits and prepares; what comes of it are arrays. Small ones are
written to files, large ones are in a file already (`hpo.data.prepared`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo.data.features import Array, Features, each_array
from hpo.data.opening import Part, SearchData, open_search_data
from hpo.data.signature import DataSignature
from hpo.spec.models import DataSpec, PythonSource

_CONTENTS = "contents.json"


def open_shared_data(
    data: DataSpec, project: Path, shared: Path, fingerprint: str | None
) -> SearchData:
    """The data of this fingerprint from the shared folder, if it is there, else opened.

    Raises DataError when the data can't be used as it is.
    """
    left = SharedData(shared, data)
    found = None if fingerprint is None else left.take(fingerprint)
    if found is None:
        found = open_search_data(data, project)
        # A function may return something else the next time, and who trains has to find that out.
        if not isinstance(data.source, PythonSource):
            left.leave(found)
    return found


@dataclass(frozen=True)
class SharedData:
    """What the processes of a machine leave of a study's data for each other.

    Attributes:
        shared: Folder of those processes, for other things too.
    """

    shared: Path
    data: DataSpec

    @property
    def _folder(self) -> Path:
        return self.shared / "data"

    def leave(self, opened: SearchData) -> None:
        """Writes the data, unless it is there. Without room for it the others open their own."""
        with contextlib.suppress(OSError):
            # Not what lies above: it is gone when its owner is gone.
            for folder in (self.shared, self._folder):
                folder.mkdir(exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                _write(opened, temporary)
                temporary.rename(self._place(opened.signature.fingerprint))
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def take(self, fingerprint: str) -> SearchData | None:
        """The data of this fingerprint, if somebody has left it; without its preparation.

        The arrays are mapped. What is written to them stays in this process.
        """
        try:
            return _read(self._place(fingerprint))
        except (OSError, ValueError):
            return None

    def _place(self, fingerprint: str) -> Path:
        facts = f"{self.data.model_dump_json()}\n{fingerprint}"
        return self._folder / hashlib.sha256(facts.encode()).hexdigest()


def _write(opened: SearchData, folder: Path) -> None:
    names = {}
    for part in ("train", "validation"):
        rows: Part = getattr(opened, part)
        names[part] = list(rows.x) if isinstance(rows.x, dict) else None
        for index, array in enumerate([rows.y, *each_array(rows.x)]):
            _write_array(array, folder / f"{part}-{index}.npy")
    contents = {"signature": opened.signature.to_json(), "inputs": names}
    (folder / _CONTENTS).write_text(json.dumps(contents))


def _write_array(array: Array, file: Path) -> None:
    base = array.base
    # Whole files alone are mapped (`hpo.data.cache`).
    if isinstance(base, np.memmap) and base.filename is not None and base.shape == array.shape:
        file.symlink_to(base.filename)
    else:
        np.save(file, array, allow_pickle=False)


def _read(folder: Path) -> SearchData:
    contents = json.loads((folder / _CONTENTS).read_text())

    def part(name: str) -> Part:
        def array(index: int) -> Array:
            mapped = np.load(folder / f"{name}-{index}.npy", mmap_mode="c", allow_pickle=False)
            return mapped.view(np.ndarray)  # type: ignore[no-any-return]

        names: list[str] | None = contents["inputs"][name]
        if names is None:
            x: Features = array(1)
        else:
            places = {each: place for place, each in enumerate(sorted(names), 1)}
            x = {each: array(places[each]) for each in names}
        return Part(x, array(0))

    signature = DataSignature.from_json(contents["signature"])
    return SearchData(part("train"), part("validation"), signature, None)
