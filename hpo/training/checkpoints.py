"""Checkpoints of one trial: written beside, synced, renamed; never half there.

A file holds the weights, the optimizer's variables and everything else that the next epoch depends
on. Its name carries the epoch and the lease's token, so a worker that has lost its lease never
overwrites what its successor wrote.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAME = re.compile(r"epoch-(\d+)\.(\d+)\.npz")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        epoch: Epochs done, from 1.
        weights: In the order of `model.weights`.
        optimizer: In the order of `optimizer.variables`.
        progress: What the trial knows beside its variables, of JSON types.
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

    def __init__(self, folder: Path, token: int) -> None:
        self.folder = folder
        self.token = token

    def save(
        self,
        epoch: int,
        weights: Sequence[NDArray[Any]],
        optimizer: Sequence[NDArray[Any]],
        progress: dict[str, Any],
    ) -> Path:
        """Writes the checkpoint of an epoch and returns its file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"w{index}": array for index, array in enumerate(weights)}
        arrays |= {f"o{index}": array for index, array in enumerate(optimizer)}
        meta = {"epoch": epoch, "weights": len(weights), "optimizer": len(optimizer)}
        arrays["meta"] = np.array(json.dumps(meta | {"progress": progress}))
        path = self.path(epoch)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return path

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.{self.token}.npz"

    def keep_only(self, epochs: set[int]) -> None:
        """Removes every other checkpoint of this lease and the ones before it."""
        for token, epoch, path in self._files():
            if token < self.token or (token == self.token and epoch not in epochs):
                path.unlink(missing_ok=True)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; damaged ones are passed over.

        It is written again under this lease's token, and so is the best one that it refers to:
        the lease before may still be deleting files.
        """
        for _token, _epoch, path in sorted(self._files(), reverse=True):
            checkpoint = load_checkpoint(path)
            if checkpoint is not None and self._adopt_best(path, checkpoint):
                return checkpoint
        return None

    def _adopt_best(self, path: Path, checkpoint: Checkpoint) -> bool:
        best = checkpoint.progress.get("best_epoch")
        if best is None:
            return True
        source = path.with_name(path.name.replace(f"{checkpoint.epoch:05d}", f"{best:05d}", 1))
        if source == self.path(best):
            return source.exists()
        content = load_checkpoint(source)
        if content is None:
            return False
        self.save(content.epoch, content.weights, content.optimizer, content.progress)
        return True

    def _files(self) -> list[tuple[int, int, Path]]:
        """(token, epoch, path) of every checkpoint."""
        if not self.folder.is_dir():
            return []
        matches = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return [(int(m[2]), int(m[1]), path) for m, path in matches if m is not None]


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in a file, or None when it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            meta = json.loads(str(arrays["meta"]))
            return Checkpoint(
                epoch=meta["epoch"],
                weights=[arrays[f"w{index}"] for index in range(meta["weights"])],
                optimizer=[arrays[f"o{index}"] for index in range(meta["optimizer"])],
                progress=meta["progress"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
