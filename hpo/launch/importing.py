"""A finished KerasTuner project as prior knowledge of a study.

Its trials stand in the study as complete ones, so the sampler begins where the project ended. They
are no slots: the study still runs all of its own trials, and its best trial is one of these.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import NoUsableTrialError, UsageError
from hpo.launch.submit import submit
from hpo.spec import StudySpec, load_study_file
from hpo.spec.models import Objective
from hpo.study.database import Database
from hpo.study.imports import ImportedTrial, add_imported, off_range
from hpo.study.studies import StudyRecord
from hpo.training.past import PastTrial, Replay
from hpo.worker.trainers import Trainers

# KerasTuner's Hyperband keeps its own state among the values.
_TUNER = "tuner/"
_EPOCHS = "tuner/epochs"


@dataclass(frozen=True)
class ProjectTrial:
    """A trial of a KerasTuner project that has ended well; `metrics` as its file holds them."""

    trial_id: str
    values: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Imported:
    """What became of a project.

    Attributes:
        found: Its trials that have ended well.
        fitting: Those that fit the study; `added` of them were not there before.
        left_out: Why the others do not, with how many.
    """

    record: StudyRecord
    found: int
    fitting: int
    added: int
    left_out: dict[str, int]


def import_project(
    folder: Path,
    file: Path,
    url: str,
    project: Path,
    trainers: Trainers,
    warn: Callable[[str], None],
) -> Imported:
    """Submits the study file and adds the KerasTuner project's trials that fit it.

    Raises:
        UsageError: The folder is no KerasTuner project, or none of its trials fits the study.
        NoUsableTrialError: None of its trials has ended well.
    """
    trials = read_project(folder)
    spec = load_study_file(file).spec
    fitting, left_out = _fit(folder, trials, spec, project, trainers)
    if not fitting:
        raise UsageError(
            f"none of the {len(trials)} finished trials in {folder} fits the study {spec.name!r}; "
            "nothing was created:\n  " + "\n  ".join(in_words(left_out))
        )
    record = submit(file, url, project, trainers, warn)
    database = Database(url)
    try:
        added = add_imported(database, record, fitting)
    finally:
        database.close()
    return Imported(record, len(trials), len(fitting), added, left_out)


def in_words(left_out: dict[str, int]) -> list[str]:
    """A line for each reason, the most frequent one first."""
    rows = sorted(left_out.items(), key=lambda row: -row[1])
    return [f"{count} {'trial' if count == 1 else 'trials'}: {reason}" for reason, count in rows]


def read_project(folder: Path) -> list[ProjectTrial]:
    """The trials of a KerasTuner project that have ended well.

    Raises:
        UsageError: The folder is no KerasTuner project.
        NoUsableTrialError: No trial has ended well.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if not (folder / "oracle.json").is_file():
        inside = [path.parent.name for path in sorted(folder.glob("*/oracle.json"))]
        hint = f"; did you mean {folder / inside[0]}?" if inside else ""
        raise UsageError(f"{folder} is no KerasTuner project: it has no oracle.json{hint}")
    files = sorted(folder.glob("trial_*/trial.json"))
    read = [trial for trial in map(_read, files) if trial is not None]
    if not read:
        raise NoUsableTrialError(f"none of the {len(files)} trials in {folder} has ended well")
    return read


def _read(file: Path) -> ProjectTrial | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["status"] != "COMPLETED":
            return None
        return ProjectTrial(
            trial_id=str(content["trial_id"]),
            values=dict(content["hyperparameters"]["values"]),
            metrics=dict(content["metrics"]["metrics"]),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{file} can't be read as a KerasTuner trial: {error!r}") from None


def _fit(
    folder: Path, trials: list[ProjectTrial], spec: StudySpec, project: Path, trainers: Trainers
) -> tuple[list[ImportedTrial], dict[str, int]]:
    """The trials that are trials of the study, and how many are not for which reason."""
    left_out: Counter[str] = Counter()
    most = max(trial.values.get(_EPOCHS, 0) for trial in trials)
    values: dict[str, float] = {}
    past = []
    for trial in trials:
        value = best_value(trial, spec.objective)
        if isinstance(value, str):
            left_out[value] += 1
        elif trial.values.get(_EPOCHS, most) < most:
            left_out[f"it ended before {most} epochs, as Hyperband had it"] += 1
        else:
            values[trial.trial_id] = value
            own = {k: v for k, v in trial.values.items() if not k.startswith(_TUNER)}
            past.append(PastTrial(trial.trial_id, own))
    fitting = []
    for replay in _replay(spec, project, past, trainers) if past else []:
        found = ImportedTrial(f"{folder}:{replay.trial_id}", values[replay.trial_id], replay.params)
        reason = replay.reason or _off_range(found)
        if reason:
            left_out[reason] += 1
        else:
            fitting.append(found)
    return fitting, dict(left_out)


def _off_range(trial: ImportedTrial) -> str:
    name = off_range(trial)
    return "" if name is None else f"its {name!r} lies between the steps of the study"


def _replay(
    spec: StudySpec, project: Path, past: list[PastTrial], trainers: Trainers
) -> list[Replay]:
    trainer = trainers.start()
    try:
        found: list[Replay] = trainer.call(
            "hpo.training.replay:replay", spec=spec, project=project, trials=past
        )
        return found
    finally:
        trainer.kill()


def best_value(trial: ProjectTrial, objective: Objective) -> float | str:
    """The best value of the study's metric, or why there is none.

    KerasTuner keeps a list for each step: one value for each execution of the trial.
    """
    metric = trial.metrics.get(objective.metric)
    if metric is None:
        known = ", ".join(trial.metrics) or "none"
        return f"it has no metric {objective.metric!r}; it has: {known}"
    means: list[float] = [
        sum(each["value"]) / len(each["value"]) for each in metric["observations"]
    ]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return f"its {objective.metric!r} is not finite"
    return max(finite) if objective.direction == "maximize" else min(finite)
