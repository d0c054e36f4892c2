"""Checkpoints of one trial: written whole or not at all.

A file is a zip archive of the weights, the optimizers' variables and everything else that the next
epoch depends on: one member of JSON, and one with the numbers of all variables behind each other. A
small network has dozens of variables, and a member for each, as in a file of `np.savez`, takes
several times as long to write. The file's name carries the epoch and the lease's token, so a worker
that has lost its lease never overwrites what its successor wrote.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpo.artifacts import Place, list_folder, open_file, remove_file, write_whole

_NAME = re.compile(r"epoch-(\d+)\.(\d+)\.(zip|tmp)")
# The members of a file.
_META, _VARIABLES = "meta.json", "variables"

# What reading a damaged file raises, by the place of the damage.
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        epoch: Epochs done, from 1.
        weights: In the order of `model.weights`; those that an export has.
        optimizer: What training goes on from: the optimizers' variables, and the weights themselves
            where the ones above are averages.
        progress: What the trial knows beside its variables, of JSON types.

    Numbers of a kind that NumPy has not of its own (bfloat16) are float32 here.
    """

    epoch: int
    weights: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    progress: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one trial under one lease.

    Args:
        folder: Created with the first checkpoint.
        token: The lease's.
    """

    def __init__(self, folder: Place, token: int) -> None:
        self.folder = folder
        self.token = token

    def save(
        self,
        epoch: int,
        weights: Sequence[NDArray[Any]],
        optimizer: Sequence[NDArray[Any]],
        progress: dict[str, Any],
    ) -> Place:
        """Writes the checkpoint of an epoch and returns its file.

        Raises:
            ArtifactsError: It can't be written; the checkpoints before are as they were.
        """
        arrays = [_readable(array) for array in (*weights, *optimizer)]
        meta = {
            "epoch": epoch,
            "weights": len(weights),
            "arrays": [(array.dtype.str, array.shape) for array in arrays],
            "progress": progress,
        }

        def write(file: BinaryIO) -> None:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_META, json.dumps(meta))
                with archive.open(_VARIABLES, "w", force_zip64=True) as member:
                    for array in arrays:
                        member.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

        path = self.path(epoch)
        write_whole(path, write)
        return path

    def path(self, epoch: int) -> Place:
        return _path(self.folder, epoch, self.token)

    def keep_only(self, epochs: set[int]) -> None:
        """Removes every other checkpoint of this lease and the ones before it."""
        for token, epoch, path in self._files():
            kept = token == self.token and epoch in epochs and path.suffix == ".zip"
            if token <= self.token and not kept:
                remove_file(path)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; damaged ones are passed over.

        It and the best one that it refers to are written again under this lease's token: the lease
        before may still be deleting files.
        """
        files = (file for file in self._files() if file[2].suffix == ".zip")
        for token, _epoch, path in sorted(files, reverse=True):
            checkpoint = load_checkpoint(path)
            if checkpoint is not None and self._adopt(checkpoint, token):
                return checkpoint
        return None

    def _adopt(self, checkpoint: Checkpoint, token: int) -> bool:
        """Makes the files of a checkpoint this lease's; whether the best one could be read."""
        best = checkpoint
        epoch = checkpoint.progress.get("best_epoch") or checkpoint.epoch
        if epoch != checkpoint.epoch:
            found = load_checkpoint(_path(self.folder, epoch, token))
            if found is None:
                return False
            best = found
        if token != self.token:
            # The best one last: alone it would be the newest for the next lease.
            for each in (checkpoint,) if best is checkpoint else (checkpoint, best):
                self.save(each.epoch, each.weights, each.optimizer, each.progress)
        return True

    def _files(self) -> list[tuple[int, int, Place]]:
        """(token, epoch, path) of every checkpoint, and of what a killed writer left behind."""
        matches = [(_NAME.fullmatch(path.name), path) for path in list_folder(self.folder)]
        return [(int(m[2]), int(m[1]), path) for m, path in matches if m is not None]


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array in a type that NumPy reads back: of bfloat16 it would write the bare bytes."""
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _path(folder: Place, epoch: int, token: int) -> Place:
    return folder / f"epoch-{epoch:05d}.{token}.zip"


def load_checkpoint(path: Place) -> Checkpoint | None:
    """The checkpoint in a file, or None when it is missing or damaged.

    Raises:
        ArtifactsError: A place that is not local can't be reached.
    """
    try:
        # Reading a member to its end compares its checksum.
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            meta, content = json.loads(archive.read(_META)), archive.read(_VARIABLES)
        arrays = list(_arrays(meta["arrays"], content))
        weights = meta["weights"]
        return Checkpoint(meta["epoch"], arrays[:weights], arrays[weights:], meta["progress"])
    except _DAMAGE:
        return None


def _arrays(forms: list[tuple[str, list[int]]], content: bytes) -> Iterator[NDArray[Any]]:
    offset = 0
    for kind, shape in forms:
        dtype = np.dtype(kind)
        count = math.prod(shape)
        yield np.frombuffer(content, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
