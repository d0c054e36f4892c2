"""Exporting the best trial of a study: finds it, has a trainer write the bundle. No Keras here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpo.artifacts import Place
from hpo.errors import HpoError, UsageError
from hpo.export.values import Bundle, ExportTask
from hpo.study.database import Database
from hpo.study.snapshot import BestTrial, best_trial, slot_of
from hpo.study.strategies import trial_seed
from hpo.study.studies import StudyRecord
from hpo.worker.trainers import Trainers


@dataclass(frozen=True)
class Exported:
    """The trial that was exported and the bundle that it became."""

    trial: BestTrial
    bundle: Bundle


def export_best(
    database: Database,
    record: StudyRecord,
    project: Path,
    artifacts: Place,
    folder: Path,
    trainers: Trainers,
) -> Exported:
    """Writes the best trial's bundle to `folder`; an older bundle there is replaced.

    Raises:
        NoUsableTrialError: No finished trial has a value.
        UsageError: The folder holds something that is not a bundle.
    """
    trial = best_trial(database, record)
    check_bundle_folder(folder)
    checkpoint = trial.attrs.get("checkpoint")
    if checkpoint is None:
        raise HpoError(f"trial {trial.number} of the study {record.name!r} left no checkpoint")
    spec = record.spec
    task = ExportTask(
        spec=spec,
        project=project,
        number=trial.number,
        params=trial.params,
        value=trial.value,
        seed=trial_seed(spec.training.seed, slot_of(database, record, trial.number)),
        checkpoint=artifacts / checkpoint,
        folder=folder,
        data=record.facts.data,
    )
    trainer = trainers.start()
    try:
        bundle: Bundle = trainer.call("hpo.export.bundle:write_bundle", task=task)
    finally:
        trainer.kill()
    return Exported(trial, bundle)


def check_bundle_folder(folder: Path) -> None:
    """Raises UsageError for a folder that holds something else, or that can't be written."""
    parent = next(path for path in folder.resolve().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        what = "can't be written to" if parent.is_dir() else "is no folder"
        raise UsageError(
            f"no bundle can be written to {folder}: {parent} {what}; choose another --out"
        )
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "model.keras").is_file()):
        raise UsageError(
            f"{folder} exists and is no bundle; choose another --out, nothing was written"
        )
