"""Finished KerasTuner projects become prior knowledge of a study."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import NoUsableTrialError, UsageError
from hpo.launch.importing import best_value, read_project
from hpo.spec.models import Objective
from tests.end_to_end.conftest import Project, project, study_content

__all__ = ["project"]

ACCURACY = Objective(metric="val_accuracy", direction="maximize")


def write_trial(folder: Path, number: int, values: dict[str, Any], **changes: Any) -> None:
    """A trial as KerasTuner 1.4 writes it."""
    observations = [{"value": [0.5 + number / 100], "step": 3}]
    content = {
        "trial_id": f"{number:02d}",
        "hyperparameters": {"space": [], "values": values},
        "metrics": {
            "metrics": {"val_accuracy": {"direction": "max", "observations": observations}}
        },
        "score": 0.5,
        "best_step": 3,
        "status": "COMPLETED",
        "message": None,
    } | changes
    file = folder / f"trial_{number:02d}" / "trial.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    (folder / "oracle.json").write_text("{}")


def test_no_such_folder_and_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        read_project(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"is no KerasTuner project: it has no oracle.json$"):
        read_project(tmp_path)
    write_trial(tmp_path / "digits", 0, {})
    with pytest.raises(UsageError, match=r"oracle.json; did you mean .*/digits\?"):
        read_project(tmp_path)


def test_only_trials_that_ended_well_are_read(tmp_path: Path) -> None:
    write_trial(tmp_path, 0, {"a": 1}, status="FAILED", metrics={"metrics": {}})
    with pytest.raises(NoUsableTrialError, match=r"none of the 1 trials in .* has ended well"):
        read_project(tmp_path)
    write_trial(tmp_path, 1, {"a": 2})
    assert [trial.values for trial in read_project(tmp_path)] == [{"a": 2}]


def test_a_damaged_trial(tmp_path: Path) -> None:
    write_trial(tmp_path, 0, {})
    (tmp_path / "trial_00" / "trial.json").write_text("{")
    with pytest.raises(UsageError, match=r"trial_00/trial.json can't be read as a KerasTuner"):
        read_project(tmp_path)


def test_the_value_is_the_best_step_s_mean(tmp_path: Path) -> None:
    observations = [
        {"value": [0.5, 0.7], "step": 0},
        {"value": [0.4, 0.4], "step": 1},
        {"value": [float("nan")], "step": 2},
    ]
    metrics = {"metrics": {"val_accuracy": {"direction": "max", "observations": observations}}}
    write_trial(tmp_path, 0, {}, metrics=metrics)
    [trial] = read_project(tmp_path)
    assert best_value(trial, ACCURACY) == pytest.approx(0.6)
    down = Objective(metric="val_accuracy", direction="minimize")
    assert best_value(trial, down) == pytest.approx(0.4)
    loss = Objective(metric="val_loss", direction="minimize")
    assert best_value(trial, loss) == "it has no metric 'val_loss'; it has: val_accuracy"


# What the builder of the end-to-end tests asks for, and the study file adds.
FITTING = {"depth": 1, "units_0": 16, "dropout": 0.1, "learning_rate": 0.01}


@pytest.mark.keras
def test_a_project_becomes_a_study(project: Project) -> None:
    tuned = project.folder / "tuned" / "digits"
    write_trial(tuned, 0, FITTING)
    write_trial(tuned, 1, FITTING | {"depth": 2, "units_1": 9, "tuner/epochs": 5})
    write_trial(tuned, 2, FITTING | {"depth": 2})
    write_trial(tuned, 3, FITTING | {"dropout": 0.9})
    write_trial(tuned, 4, FITTING | {"filters": 3})
    write_trial(tuned, 5, FITTING, metrics={"metrics": {}})
    write_trial(tuned, 6, FITTING | {"tuner/epochs": 2})
    write_trial(tuned, 7, FITTING, status="INVALID")
    done = project.hpo("import-kerastuner", tuned, "study.yaml")
    assert (done.returncode, done.stdout) == (0, "small\n"), done.stderr
    for words in (
        "2 of 7 trials imported",
        "left out 1 trial: it has no value for 'units_1', which the study samples",
        "left out 1 trial: dropout is 0.9, the study wants a number from 0 to 0.4",
        "left out 1 trial: neither builder nor study file asks for its parameter 'filters'",
        "left out 1 trial: it has no metric 'val_accuracy'; it has: none",
        "left out 1 trial: it ended before 5 epochs, as Hyperband had it",
        "start workers with: hpo worker small",
    ):
        assert words in done.stderr
    again = project.hpo("import-kerastuner", tuned, "study.yaml")
    assert "0 of 7 trials imported, 2 before" in again.stderr

    project.write(study_content(search={"trials": 3}, training={"epochs": 1}))
    # Another study of the same file's name differs.
    assert project.hpo("import-kerastuner", tuned, "study.yaml").returncode == 2


@pytest.mark.keras
def test_the_study_goes_on_from_there(project: Project) -> None:
    tuned = project.folder / "tuned"
    for number in range(12):
        write_trial(tuned, number, FITTING | {"units_0": 16 + number})
    project.write(study_content(search={"trials": 2}, training={"epochs": 1, "seed": 3}))
    assert project.hpo("import-kerastuner", tuned, "study.yaml").returncode == 0
    done = project.hpo("run", "study.yaml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    status = json.loads(project.hpo("status", "--json").stdout)
    assert (status["finished"], status["trials"], status["state"]) == (2, 2, "finished")
    assert status["best_number"] in (12, 13)
    with sqlite3.connect(project.folder / "hpo.db") as database:
        assert database.execute("SELECT count(*) FROM trials").fetchone() == (14,)
    database.close()


@pytest.mark.keras
def test_nothing_fits(project: Project) -> None:
    tuned = project.folder / "tuned"
    write_trial(tuned, 0, {"other": 1})
    done = project.hpo("import-kerastuner", tuned, "study.yaml")
    assert done.returncode == 2
    assert "none of the 1 finished trials in" in done.stderr
    assert "nothing was created" in done.stderr
    assert not (project.folder / "hpo.db").exists()
