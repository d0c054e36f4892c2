"""The studies that ship with the project are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.spec import load_study_file
from tests.conftest import ROOT, Hpo

pytestmark = pytest.mark.keras

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_it_passes_validation(inprocess_hpo: Hpo, forkserver: str, study: Path) -> None:
    done = inprocess_hpo("validate", study, "--project", ROOT, HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    task = done.stdout.partition("is valid: ")[2].partition(" ")[0]
    reported = done.stdout.splitlines()[-1].partition("each epoch reports: ")[2].split(", ")
    metrics = {"regression": {"mae", "r2_score"}}.get(task, {"accuracy"}) | {"loss"}
    assert set(reported) == metrics | {f"val_{name}" for name in metrics}
    assert load_study_file(study).spec.objective.metric in reported
