"""Utterances of different length from a table in long form to predictions, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, Hpo

pytestmark = [pytest.mark.keras, pytest.mark.slow]

# The nearest neighbour under dynamic time warping of all dimensions together: Bagnall and others,
# The UEA multivariate time series classification archive, 2018, https://arxiv.org/abs/1811.00075
PUBLISHED = 0.949


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("models", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def shorten(study: Path) -> None:
    """Two short trials, from the same data as CSV."""
    content = yaml.safe_load(study.read_text())
    for name in ("train", "test"):
        table = study.parent / "japanese-vowels" / f"{name}.parquet"
        pd.read_parquet(table).to_csv(table.with_suffix(".csv"), index=False)
    data = content["data"]
    data["source"]["path"] = "studies/japanese-vowels/train.csv"
    data["split"]["test"] = "studies/japanese-vowels/test.csv"
    content["training"] = {"epochs": 12}
    content["space"] = {"cell": "gru", "depth": 1, "units_0": 32, "learning_rate": 0.01}
    content["space"] |= {"dropout": 0.0, "recurrent_dropout": 0.0}
    content["search"] = {"trials": 2, "sampler": "random"}
    study.write_text(yaml.safe_dump(content))


@pytest.mark.long
def test_utterances_from_file_to_predictions(project: Path, hpo: Hpo, forkserver: str) -> None:
    shorten(project / "studies" / "vowels.yaml")
    done = hpo("run", "studies/vowels.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((project / "bundles/vowels/metrics.json").read_text())
    assert metrics["rows"] == {"train": 216, "validation": 54, "test": 370}
    assert metrics["test"]["accuracy"] > 0.7

    frame = pd.read_parquet(project / "studies/japanese-vowels/test.parquet")
    speakers = frame.groupby("utterance")["speaker"].first()
    fresh = frame.drop(columns="speaker").sample(frac=1, random_state=0)
    fresh.to_csv(project / "fresh.csv", index=False)
    said = hpo("predict", "bundles/vowels", "fresh.csv", "--json", HPO_FORKSERVER=forkserver)
    assert said.returncode == 0, said.stderr
    rows = {row["id"]: row for row in map(json.loads, said.stdout.splitlines())}
    assert set(rows) == set(speakers.index)
    right = [rows[name]["prediction"] == str(speaker) for name, speaker in speakers.items()]
    assert np.mean(right) == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)

    text = hpo("predict", "bundles/vowels", "fresh.csv", HPO_FORKSERVER=forkserver)
    name, speaker, probability = text.stdout.splitlines()[0].split("\t")
    assert rows[name]["prediction"] == speaker
    assert float(probability) == pytest.approx(rows[name]["probability"], abs=1e-4)

    fresh.drop(columns="frame").to_csv(project / "fresh.csv", index=False)
    refused = hpo("predict", "bundles/vowels", "fresh.csv", HPO_FORKSERVER=forkserver)
    assert refused.returncode == 2
    assert "fresh.csv has no column 'frame'" in refused.stderr


@pytest.mark.anchor
@pytest.mark.timeout(1800)
def test_the_study_reaches_what_was_published(project: Path, hpo: Hpo, forkserver: str) -> None:
    study = "studies/vowels.yaml"
    done = hpo("run", study, "--workers", 2, timeout=1700, HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((project / "bundles/vowels/metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= PUBLISHED - 0.02
