"""Where the files of a study lie below the artifacts folder.

::

    artifacts/
      files/                       pictures and tables that the dashboard shows
      STUDY/trial-00012/           checkpoints of one trial
      STUDY/logs/WORKER.log        what its trainer printed
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import optuna

from hpo.study.database import Database
from hpo.study.leases import Slots
from hpo.study.snapshot import best_numbers
from hpo.study.studies import StudyRecord

# So many of the best trials keep their checkpoint.
_KEPT_TRIALS = 3
_TRIAL = re.compile(r"trial-(\d+)")


@dataclass(frozen=True)
class StudyPaths:
    """The folders of one study."""

    artifacts: Path
    study: str

    @property
    def folder(self) -> Path:
        return self.artifacts / self.study

    def trial(self, number: int) -> Path:
        return self.folder / f"trial-{number:05d}"

    def log(self, worker: str) -> Path:
        return self.folder / "logs" / f"{worker}.log"

    def relative(self, path: Path) -> str:
        """As it is stored: another machine may see the artifacts under another path."""
        return str(path.relative_to(self.artifacts))

    def attach(self, trial: optuna.Trial, files: Iterable[Path]) -> None:
        """Moves files to where the dashboard finds them and links them to the trial."""
        store = artifact_store(self.artifacts)
        for file in files:
            optuna.artifacts.upload_artifact(
                artifact_store=store, file_path=str(file), study_or_trial=trial
            )
            file.unlink()

    def keep_best(self, database: Database, record: StudyRecord, slots: Slots) -> None:
        """Removes the folders of ended trials that are not among the best."""
        # Listed first: a trial that begins after this is not in the list.
        found = [(_TRIAL.fullmatch(path.name), path) for path in self.folder.glob("trial-*")]
        keep = slots.unfinished_numbers() | set(best_numbers(database, record, _KEPT_TRIALS))
        for match, path in found:
            if match is not None and int(match[1]) not in keep:
                shutil.rmtree(path, ignore_errors=True)


def artifact_store(artifacts: Path) -> optuna.artifacts.FileSystemArtifactStore:
    """The store that workers write to and the dashboard reads from."""
    folder = artifacts / "files"
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.artifacts.FileSystemArtifactStore(str(folder))
