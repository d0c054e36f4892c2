"""What the studies in studies/ reach on test rows that the search has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Hpo

pytestmark = [pytest.mark.keras, pytest.mark.anchor, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("study", "metric", "least"),
    [
        ("digits-cnn", "accuracy", 0.98),
        ("breast-cancer", "accuracy", 0.96),
        ("diabetes", "r2_score", 0.40),
    ],
)
def test_thirty_trials(
    hpo: Hpo, forkserver: str, tmp_path: Path, study: str, metric: str, least: float
) -> None:
    storage = f"sqlite:///{tmp_path / 'hpo.db'}"
    place = ("--project", ROOT, "--storage", storage, "--artifacts", tmp_path / "artifacts")
    file = ROOT / "studies" / f"{study}.yaml"
    out = tmp_path / "bundle"
    done = hpo("run", file, *place, "--out", out, timeout=1700, HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    assert "30 trials" in done.stderr
    assert json.loads((out / "metrics.json").read_text())["test"][metric] >= least
