"""Where the files of a study lie below its artifacts.

::

    artifacts/
      files/                       pictures and tables that the dashboard shows
      STUDY/trial-00012-1a2b3c4d/  checkpoints of one trial; the end is the study's mark
      STUDY/logs/WORKER.log        what its trainer printed; always on this machine
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound

from hpo.artifacts import Place, list_folder, open_file, remove_file, remove_folder, write_whole
from hpo.study.database import Database
from hpo.study.leases import Slots
from hpo.study.snapshot import best_numbers
from hpo.study.studies import StudyRecord
from hpo.training.channel import Attachment

# So many of the best trials keep their checkpoint.
_KEPT_TRIALS = 3
_TRIAL = re.compile(r"trial-(\d+)(?:-([0-9a-f]+))?")


@dataclass(frozen=True)
class StudyPaths:
    """The folders of one study.

    Attributes:
        project: Has the logs when the artifacts are not on this machine.
        mark: Of the study, so that none goes on from checkpoints of another one of its name, be
            that deleted or in another database, or removes them.
    """

    artifacts: Place
    study: str
    project: Path
    mark: str | None

    @property
    def folder(self) -> Place:
        return self.artifacts / self.study

    def trial(self, number: int) -> Place:
        end = "" if self.mark is None else f"-{self.mark}"
        return self.folder / f"trial-{number:05d}{end}"

    def log(self, worker: str) -> Path:
        local = self.artifacts
        if not isinstance(local, Path):
            local = self.project / "artifacts"
        return local / self.study / "logs" / f"{worker}.log"

    def remove_empty_log(self, worker: str) -> None:
        """Nothing is left of a log in which nothing stands, nor of the folders made for it.

        The artifacts folder itself may be somebody's: it stays.
        """
        log = self.log(worker)
        with contextlib.suppress(OSError):
            if log.stat().st_size == 0:
                remove_with_folders(log, 2)

    def relative(self, path: Place) -> str:
        """A trial's file as it is stored: another machine may see the artifacts elsewhere."""
        return f"{self.study}/{path.parent.name}/{path.name}"

    def attach(self, trial: optuna.Trial, files: Iterable[Attachment]) -> None:
        """Writes files to where the dashboard finds them and links them to the trial.

        Raises:
            ArtifactsError: They can't be written.
        """
        store = ArtifactStore(self.artifacts)
        with tempfile.TemporaryDirectory(prefix="hpo-") as folder:
            for file in files:
                path = Path(folder) / file.name
                path.write_bytes(file.content)
                optuna.artifacts.upload_artifact(
                    artifact_store=store, file_path=str(path), study_or_trial=trial
                )

    def keep_best(self, database: Database, record: StudyRecord, slots: Slots) -> None:
        """Removes the folders of ended trials but those of the best that have one."""
        # Listed first: a trial that begins after this is not in the list.
        found = self._trials()
        keep = slots.unfinished_numbers()
        keep |= set(best_numbers(database, record, _KEPT_TRIALS, set(found)))
        for number in found.keys() - keep:
            remove_folder(found[number])

    def _trials(self) -> dict[int, Place]:
        """The folders of this very study's trials by their numbers."""
        matches = [(_TRIAL.fullmatch(path.name), path) for path in list_folder(self.folder)]
        return {int(m[1]): path for m, path in matches if m is not None and m[2] == self.mark}


def remove_with_folders(file: Path, folders: int) -> None:
    """Removes a file, if it is there, and so many folders above it, as far as they are empty."""
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in file.parents[:folders]:
            folder.rmdir()


class ArtifactStore:
    """Optuna's store of pictures and tables: workers write to it, the dashboard reads from it."""

    def __init__(self, artifacts: Place) -> None:
        self._folder = artifacts / "files"

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            return open_file(self._folder / artifact_id)
        except FileNotFoundError as error:
            raise ArtifactNotFound(artifact_id) from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        write_whole(self._folder / artifact_id, lambda file: shutil.copyfileobj(content_body, file))

    def remove(self, artifact_id: str) -> None:
        remove_file(self._folder / artifact_id)
