"""A study in a real PostgreSQL, with workers started by hand as on many machines."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from tests.end_to_end.conftest import Project, study_content
from tests.servers import Server

pytestmark = pytest.mark.keras


def test_two_workers_on_postgresql(
    project: Project, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.new_database()
    monkeypatch.setenv("HPO_STORAGE", url)
    project.write(study_content(search={"trials": 4, "pruner": "median"}))
    submitted = project.hpo("submit", "study.yaml")
    assert submitted.returncode == 0, submitted.stderr
    workers = [project.start("worker", "small", "--threads", "1") for _ in range(2)]
    for worker in workers:
        output, _ = worker.communicate(timeout=200)
        assert worker.returncode == 0, output
    storage = optuna.storages.RDBStorage(url)
    trials = optuna.load_study(study_name="small", storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    assert [trial.number for trial in trials] == list(range(4))
    assert all(trial.state.is_finished() for trial in trials)
    exported = project.hpo("export")
    assert exported.returncode == 0, exported.stderr
    assert (project.folder / "bundles" / "small" / "model.keras").is_file()
    assert not list(Path(project.folder).glob("*.db"))
