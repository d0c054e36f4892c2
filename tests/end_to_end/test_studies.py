"""The studies that ship with the project are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT, Hpo

pytestmark = pytest.mark.keras

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_it_passes_validation(hpo: Hpo, forkserver: str, study: Path) -> None:
    done = hpo("validate", study, "--project", ROOT, HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    assert "val_loss" in done.stdout
