"""A CSV with texts, dates and gaps from file to predictions, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT, Hpo

pytestmark = [pytest.mark.keras, pytest.mark.slow]

STUDY = """
version: 1
name: wine
data:
  source: {type: table, path: wine.csv, target: class}
  split: {seed: 3}
  preprocess: {normalize: standard}
model: {builder: "models.mlp:MLP"}
objective: {metric: val_accuracy, direction: maximize}
training: {epochs: 10}
space:
  depth: 1
  dropout: 0.0
  learning_rate: {type: float, low: 1e-3, high: 1e-1, log: true}
search: {trials: 2, sampler: random}
"""


@pytest.fixture
def wine(tmp_path: Path) -> pd.DataFrame:
    """scikit-learn's wine, one column as text, with gaps and an id."""
    from sklearn.datasets import load_wine

    frame = load_wine(as_frame=True).frame.sample(frac=1, random_state=0, ignore_index=True)
    frame["class"] = frame.pop("target").map({0: "barolo", 1: "grignolino", 2: "barbera"})
    frame["hue"] = np.where(frame["hue"] > 1, "light", "dark")
    frame.loc[::9, "alcohol"] = np.nan
    frame.loc[::11, "hue"] = None
    frame.insert(0, "bottle", np.arange(len(frame)))
    frame.to_csv(tmp_path / "wine.csv", index=False)
    shutil.copytree(ROOT / "models", tmp_path / "models")
    (tmp_path / "wine.yaml").write_text(dedent(STUDY))
    return frame


def test_a_table_from_file_to_predictions(
    wine: pd.DataFrame, tmp_path: Path, hpo: Hpo, forkserver: str
) -> None:
    done = hpo("run", "wine.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    assert "warning: column 'bottle' has another value in every row" in done.stderr
    metrics = json.loads((tmp_path / "bundles/wine/metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.8
    assert metrics["input"]["columns"]["hue"]["kind"] == "categorical"

    # What was validated is found again from the raw file, in another order and another format.
    fresh = wine.drop(columns=["class", "bottle"])[sorted(wine.columns.drop(["class", "bottle"]))]
    fresh.to_parquet(tmp_path / "fresh.parquet")
    predicted = hpo("predict", "bundles/wine", "fresh.parquet", "--json", HPO_FORKSERVER=forkserver)
    assert predicted.returncode == 0, predicted.stderr
    names = [json.loads(line)["prediction"] for line in predicted.stdout.splitlines()]
    right = np.array(names) == wine["class"].to_numpy()
    from hpo.data import open_raw_part
    from hpo.spec import load_study_file

    data = load_study_file(tmp_path / "wine.yaml").spec.data
    for part in ("validation", "test"):
        rows = open_raw_part(data, tmp_path, part).rows
        assert right[rows].mean() == pytest.approx(metrics[part]["accuracy"], abs=1e-6)

    fresh.drop(columns="hue").to_parquet(tmp_path / "fresh.parquet")
    refused = hpo("predict", "bundles/wine", "fresh.parquet", HPO_FORKSERVER=forkserver)
    assert refused.returncode == 2
    assert "fresh.parquet has no column 'hue'" in refused.stderr
