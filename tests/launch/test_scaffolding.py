"""hpo init: what it writes is valid, and runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.spec import load_study_file
from tests.conftest import Hpo

TEMPLATES = ["table", "image", "sequence", "kerastuner"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_is_written(tmp_path: Path, hpo: Hpo, template: str) -> None:
    done = hpo("init", "mine", "--template", template)
    assert done.returncode == 0, done.stderr
    written = {Path(line).name for line in done.stdout.splitlines()}
    assert written >= {"README.md", "model.py", "study.yaml", ".gitignore"}
    assert "cd mine && hpo run study.yaml" in done.stderr
    name = load_study_file(tmp_path / "mine" / "study.yaml").spec.name
    assert name in (tmp_path / "mine" / "README.md").read_text() or template == "kerastuner"


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "table",
        *(pytest.param(name, marks=pytest.mark.long) for name in TEMPLATES if name != "table"),
    ],
)
def test_a_project_runs(tmp_path: Path, hpo: Hpo, forkserver: str, template: str) -> None:
    folder = tmp_path / "mine"
    assert hpo("init", folder, "--template", template).returncode == 0
    study = folder / "study.yaml"
    study.write_text(study.read_text().replace("trials: 20", "trials: 2"))
    where = ("--project", folder)
    checked = hpo("validate", study, *where, HPO_FORKSERVER=forkserver)
    assert checked.returncode == 0, checked.stderr
    done = hpo("run", study, *where, HPO_FORKSERVER=forkserver, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "test" in done.stdout


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, hpo: Hpo) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    done = hpo("init", "mine")
    assert done.returncode == 2
    assert "exists and is not empty" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_folder_that_can_not_be_made(tmp_path: Path, hpo: Hpo) -> None:
    (tmp_path / "file").touch()
    done = hpo("init", "file/mine")
    assert done.returncode == 2
    assert "can't write to" in done.stderr
    assert hpo("init", "mine", "--template", "sound").returncode == 2
