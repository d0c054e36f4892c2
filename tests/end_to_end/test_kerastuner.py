"""HyperModels of KerasTuner's and its users, through study files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT
from tests.end_to_end.conftest import Project, study_content

pytestmark = pytest.mark.keras

DOCUMENT = ROOT / "docs" / "kerastuner.md"


def blocks(language: str) -> list[str]:
    text = DOCUMENT.read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.long
def test_the_documented_hypermodel_with_its_own_fit(project: Project) -> None:
    (project.folder / "tuned.py").write_text(blocks("python")[0])
    project.write(
        study_content(
            model={"builder": "tuned:Net"},
            training={"epochs": 3, "seed": 3},
            space={},
            search={"trials": 4, "pruner": {"type": "median", "n_startup_trials": 1}},
        )
    )
    done = project.hpo("run", "study.yaml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    status = json.loads(project.hpo("status", "--json").stdout)
    assert (status["finished"], status["failed"]) == (4, 0)
    best = json.loads(project.hpo("best", "--json").stdout)
    assert {"units", "batch_size", "momentum"} <= set(best["params"])
    assert 0.5 <= best["params"]["momentum"] <= 0.99
    bundle = project.folder / "bundles" / "small"
    config = yaml.safe_load((bundle / "config.yaml").read_text())
    assert config["space"]["batch_size"] == best["params"]["batch_size"]
    assert config["space"]["momentum"] == pytest.approx(best["params"]["momentum"])
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert metrics["validation"]["accuracy"] == pytest.approx(best["value"], abs=1e-3)
    checked = project.hpo("validate", bundle / "config.yaml")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.long
def test_the_documented_script(project: Project) -> None:
    import os
    import subprocess
    import sys

    script = blocks("python")[1]
    # Not installed here: what KerasTuner imports of it is used with its TensorBoard callback only.
    (project.folder / "tensorboard" / "plugins" / "hparams").mkdir(parents=True)
    for name in ("", "plugins", "plugins/hparams"):
        (project.folder / "tensorboard" / name / "__init__.py").touch()
    (project.folder / "tensorboard" / "plugins" / "hparams" / "api.py").touch()
    (project.folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    project.write(
        study_content(
            name="iris",
            data={"source": {"type": "sklearn", "name": "iris"}},
            model={"builder": "script_model:build"},
            training={"epochs": 1},
            space={},
            search={"trials": 1},
        )
    )
    build = re.search(r"^def build.*?^    return model\n", script, re.MULTILINE | re.DOTALL)
    assert build is not None
    (project.folder / "script_model.py").write_text("import keras\n\n\n" + build[0])
    done = project.hpo("import-kerastuner", "tuning/iris", "study.yaml")
    assert done.returncode == 0, done.stderr
    assert "trials imported" in done.stderr


AUGMENTED = """
import keras
import keras_tuner


class Augmented(keras_tuner.HyperModel):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.num_outputs = num_outputs
        # RandAugment (augment_layers above 0) makes layers at every call, which TensorFlow refuses.
        self.augment = keras_tuner.applications.HyperImageAugment(
            input_shape=input_shape, augment_layers=0
        )

    def build(self, hp):
        augment = self.augment.build(hp)
        filters = hp.Int("filters", 4, 16, step=4)
        x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(augment.output)
        x = keras.layers.GlobalAveragePooling2D()(x)
        outputs = keras.layers.Dense(self.num_outputs, "softmax")(x)
        return keras.Model(augment.input, outputs)
"""


def pictures(folder: Path) -> None:
    """Scikit-learn's digits as colour pictures of 32 x 32."""
    from sklearn.datasets import load_digits

    found = load_digits()
    large = np.kron(found.images[:120], np.ones((4, 4))) / 16
    x = np.repeat(large[..., None], 3, axis=-1).astype("float32")
    np.savez(folder / "pictures.npz", x=x, y=found.target[:120])


def run_ten(project: Project, builder: str, space: dict[str, Any], **args: Any) -> None:
    pictures(project.folder)
    (project.folder / "augmented.py").write_text(AUGMENTED)
    project.write(
        study_content(
            data={"source": {"type": "npz", "path": "pictures.npz"}},
            model={"builder": builder, "args": args},
            training={"epochs": 1, "batch_size": 24},
            space=space,
            search={"trials": 10},
        )
    )
    done = project.hpo("run", "study.yaml", "--workers", 1, "--no-export", timeout=2400)
    assert done.returncode == 0, done.stderr
    status = json.loads(project.hpo("status", "--json").stdout)
    assert (status["finished"], status["failed"], status["trials"]) == (10, 0, 10)


@pytest.mark.long
def test_ten_trials_of_hyper_image_augment(project: Project) -> None:
    run_ten(project, "augmented:Augmented", {})


@pytest.mark.anchor
@pytest.mark.timeout(2500)
def test_ten_trials_of_hyper_xception(project: Project) -> None:
    space = {
        "sep_num_filters": 128,
        "num_residual_blocks": {"type": "int", "low": 2, "high": 3},
        "conv2d_num_filters": 32,
    }
    run_ten(project, "keras_tuner.applications:HyperXception", space, classes=10)


@pytest.mark.anchor
@pytest.mark.timeout(2500)
def test_ten_trials_of_hyper_res_net(project: Project) -> None:
    # Version v1, v2 or next; the depths of 50 layers only, because each trial is traced anew.
    space = {"conv3_depth": 4, "conv4_depth": 6}
    run_ten(project, "keras_tuner.applications:HyperResNet", space, classes=10)
