"""A folder of PNG files, from the study file to predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from hpo.spec import load_study_file
from tests.conftest import ROOT, Hpo
from tests.pictures import write_digits

pytestmark = [pytest.mark.keras, pytest.mark.slow]

STUDY = {
    "version": 1,
    "name": "pictures",
    "data": {
        "source": {"type": "images", "path": "digits", "color": "grayscale"},
        "preprocess": {"normalize": "standard"},
    },
    "model": {"builder": "models.cnn:build"},
    "objective": {"metric": "val_accuracy", "direction": "maximize"},
    "training": {"epochs": 5, "batch_size": 64, "seed": 1, "augment": {"contrast": 0.1}},
    "space": {
        "depth": 2,
        "filters_0": 16,
        "filters_1": 32,
        "dropout": 0.2,
        "batchnorm": True,
        "learning_rate": 0.003,
        "augment_rotation": {"type": "float", "low": 0.0, "high": 0.05},
        "augment_translation": {"type": "float", "low": 0.0, "high": 0.1},
    },
    "search": {"trials": 3, "sampler": "random"},
}


@pytest.mark.long
def test_pictures_from_study_file_to_predictions(hpo: Hpo, tmp_path: Path) -> None:
    write_digits(tmp_path / "digits")
    shutil.copytree(ROOT / "models", tmp_path / "models")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    cache = {"HPO_CACHE": str(tmp_path / "cache")}
    done = hpo("run", "study.yaml", "--workers", 1, timeout=280, **cache)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "cache").glob("images-*.npy"))) == 1

    bundle = tmp_path / "bundles" / "pictures"
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.9
    assert {"augment_rotation", "augment_translation"} <= set(metrics["hyperparameters"])
    assert metrics["input"] == {"type": "images", "size": [8, 8], "color": "grayscale"}
    fixed = load_study_file(bundle / "config.yaml").spec.space
    assert fixed["augment_rotation"] == metrics["hyperparameters"]["augment_rotation"]

    found = hpo("predict", bundle, "digits", "--json")
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(rows) == 1797
    right = [row["prediction"] == row["file"].partition("/")[0] for row in rows]
    assert sum(right) / len(right) > 0.9
    one = hpo("predict", bundle, tmp_path / "digits" / rows[0]["file"])
    assert one.stdout == (
        f"{Path(rows[0]['file']).name}\t{rows[0]['prediction']}\t{rows[0]['probability']:.4f}\n"
    )
