"""One study for each source and task: submit, train, export, and predict from raw rows.

What is predicted for the raw rows of the validation part has the value that the search reported.
`tests/end_to_end/sources.py` writes the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from hpo.data.opening import RawPart
from hpo.data.signature import ResolvedTask
from hpo.spec import load_study_file
from hpo.spec.models import DataSpec
from hpo.worker.forkserver import start_forkserver
from hpo.worker.trainers import Trainers
from tests.conftest import Hpo
from tests.end_to_end.sources import CASES, Case, Written, write_fashion_mnist

Prediction = dict[str, Any]

pytestmark = [pytest.mark.keras, pytest.mark.long]

# No regularization: the loss is what can be computed from predictions alone.
BUILDERS = """
import keras
from keras import layers

HEADS = {"binary": "sigmoid", "multiclass": "softmax", "multilabel": "sigmoid"}


def head(x, num_outputs, task, target_mean, target_std):
    x = layers.Dense(num_outputs, HEADS.get(task))(x)
    return layers.Rescaling(list(target_std), list(target_mean))(x) if target_mean else x


def dense(hp, input_shape, num_outputs, task, target_mean, target_std, vocabulary_sizes):
    shapes = input_shape if isinstance(input_shape, dict) else {"x": input_shape}
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    parts = [
        layers.Embedding(vocabulary_sizes[name], 3)(each) if name in vocabulary_sizes else each
        for name, each in inputs.items()
    ]
    x = layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    x = layers.Dense(hp.Int("units", 16, 64), "relu")(x)
    outputs = head(x, num_outputs, task, target_mean, target_std)
    return keras.Model(inputs if isinstance(input_shape, dict) else inputs["x"], outputs)


def convolutional(hp, input_shape, num_outputs, task, target_mean, target_std):
    x = inputs = keras.Input(input_shape)
    x = layers.Conv2D(hp.Int("units", 8, 16), 3, strides=2, activation="relu")(x)
    outputs = head(layers.Flatten()(x), num_outputs, task, target_mean, target_std)
    return keras.Model(inputs, outputs)


def pooled(hp, input_shape, num_outputs, task, target_mean, target_std, mask_value):
    x = inputs = keras.Input(input_shape)
    x = x if mask_value is None else layers.Masking(mask_value)(x)
    x = layers.Dense(hp.Int("units", 8, 16), "relu")(x)
    x = layers.GlobalAveragePooling1D()(x)  # passes over what is masked
    return keras.Model(inputs, head(x, num_outputs, task, target_mean, target_std))
"""


@pytest.fixture(scope="module")
def keras_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fork server whose Keras has a cache of its own, with a data set in it."""
    folder = tmp_path_factory.mktemp("home")
    write_fashion_mnist(folder)
    with pytest.MonkeyPatch.context() as patch:
        # Keras reads this one when it is imported.
        patch.setenv("KERAS_HOME", str(folder))
        patch.setenv("HPO_CACHE", str(folder / "pictures"))
        server = start_forkserver()
    yield server.address
    server.close()


@dataclass(frozen=True)
class Project:
    """A folder with data, builders and a study file, and the command run in it."""

    folder: Path
    forkserver: str
    run: Hpo

    def hpo(self, *arguments: object) -> str:
        done = self.run(*arguments, HPO_FORKSERVER=self.forkserver)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, case: Case) -> Written:
        written = case.write(self.folder)
        (self.folder / "builders.py").write_text(BUILDERS)
        study = {
            "version": 1,
            "name": "whole",
            "data": written.data,
            "model": {"builder": f"builders:{case.builder}"},
            "objective": {"metric": "val_loss", "direction": "minimize"},
            "training": {"epochs": 2, "learning_rate": 0.01, "seed": 5},
            "search": {"trials": 2, "sampler": "random"},
        }
        (self.folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return written

    def validation(self) -> RawPart:
        """The rows that were validated on; opened where Keras is imported already."""
        data = load_study_file(self.folder / "study.yaml").spec.data
        trainers = Trainers(self.forkserver)
        trainer = trainers.start()
        part: RawPart = trainer.call(
            "hpo.data:open_raw_part", data=data, project=self.folder, part="validation"
        )
        trainer.kill()
        trainers.close()
        return part

    def predict(self, file: Path) -> list[Prediction]:
        said = self.hpo("predict", "bundles/whole", file, "--json")
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture
def project(tmp_path: Path, keras_server: str, inprocess_hpo: Hpo) -> Project:
    return Project(tmp_path, keras_server, inprocess_hpo)


@pytest.mark.parametrize("name", CASES)
def test_predictions_from_raw_rows_have_the_value_of_the_search(
    name: str, project: Project
) -> None:
    case = CASES[name]
    written = project.write(case)
    project.hpo("submit", "study.yaml")
    project.hpo("worker", "whole")
    best = json.loads(project.hpo("best", "--json"))
    project.hpo("export")
    metrics = json.loads((project.folder / "bundles/whole/metrics.json").read_text())
    assert metrics["task"] == case.task

    part = project.validation()
    assert len(part.rows) == metrics["rows"]["validation"]
    file, truth = written.ask(part)
    rows = project.predict(file)
    truths = in_order(rows, truth)
    found = loss(case.task, rows, truths)
    # As exactly as the export holds a model to the search's value.
    assert found == pytest.approx(best["value"], rel=1e-3, abs=1e-4)
    if "accuracy" in metrics["validation"]:
        right = share_right(case.task, rows, truths)
        assert right == pytest.approx(metrics["validation"]["accuracy"], abs=1e-6)
    # The answers of other rows would have shown.
    assert loss(case.task, rows, np.roll(truths, 1, axis=0)) != pytest.approx(found, rel=1e-2)


def in_order(rows: list[Prediction], truth: Any) -> np.ndarray:
    """A true target for each prediction; some come with the name of a file or a series."""
    if isinstance(truth, dict):
        assert len(rows) == len(truth)
        truth = [truth[row.get("file", row.get("id"))] for row in rows]
    assert len(rows) == len(truth)
    return np.asarray(truth)


def loss(task: str, rows: list[Prediction], truths: np.ndarray) -> float:
    """Cross-entropy, or the mean squared error."""
    if task == "regression":
        said = np.array([values(row["prediction"]) for row in rows])
        return float(np.mean((said - truths.reshape(said.shape)) ** 2))
    if task == "multilabel":
        shares = np.array([list(row["labels"].values()) for row in rows])
        return float(-np.log(np.where(truths == 1, shares, 1 - shares)).mean())
    shares = [row["classes"][name] for row, name in zip(rows, truths, strict=True)]
    return float(-np.log(shares).mean())


def values(prediction: Any) -> Any:
    """Numbers; of a forecast of several columns by name."""
    return list(prediction.values()) if isinstance(prediction, dict) else prediction


def share_right(task: str, rows: list[Prediction], truths: np.ndarray) -> float:
    said = [row["prediction"] for row in rows]
    if task == "multilabel":
        chosen = [
            [name in each for name in row["labels"]] for row, each in zip(rows, said, strict=True)
        ]
        return float(np.mean(np.array(chosen) == truths))
    return float(np.mean(np.array(said) == truths))


def test_every_source_and_every_task_has_a_study() -> None:
    source = DataSpec.model_fields["source"].annotation
    kinds = {kind.model_fields["type"].annotation for kind in get_args(source)}
    assert {case.source for case in CASES.values()} == {get_args(kind)[0] for kind in kinds}
    assert {case.task for case in CASES.values()} == set(get_args(ResolvedTask))
