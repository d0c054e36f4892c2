"""The exported bundle: the best model with its preprocessing inside, and what to know of it.

::

    bundle/
      model.keras     takes raw input; loads with Keras alone, safe_mode=True
      config.yaml     a study file with every hyperparameter fixed, fit to be run again
      metrics.json    value in the search, validation and held-out test metrics, data, versions

`write_bundle` needs Keras and runs in a trainer process. The folder is written beside and renamed.
"""

from __future__ import annotations

import datetime
import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hpo import __version__
from hpo.data import DataSignature, FittedPreprocessing, open_raw_part
from hpo.data.layers import preprocessing_layers
from hpo.data.opening import PartName
from hpo.errors import HpoError
from hpo.export.values import Bundle, ExportTask
from hpo.spec import StudySpec, write_study_file
from hpo.spec.models import Search
from hpo.training.checkpoints import load_checkpoint
from hpo.training.compiling import targets_for
from hpo.training.trial import TrialModel, build_model, prepare


def write_bundle(task: ExportTask) -> Bundle:
    """Builds, restores, evaluates and saves the model of a trial.

    Raises:
        HpoError: The checkpoint is gone or does not fit, or the model no longer reaches the value
            that the search reported.
    """
    bench = prepare(task.spec, task.project)
    built = build_model(bench, lambda name, _: task.params[name], task.seed)
    _restore(built.model, task)
    model = with_preprocessing(built.model, bench.data.preprocessing)
    signature = bench.data.signature
    validation = _evaluate(model, built, signature, task, "validation")
    _check_value(task, validation)
    test = _evaluate(model, built, signature, task, "test")
    temporary = task.folder.with_name(f".{task.folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save(temporary / "model.keras")
    _write_config(task, built, temporary / "config.yaml")
    metrics = _metrics(task, built, signature, validation, test)
    (temporary / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    shutil.rmtree(task.folder, ignore_errors=True)
    temporary.rename(task.folder)
    return Bundle(task.folder, validation, test)


def with_preprocessing(model: keras.Model, fitted: FittedPreprocessing) -> keras.Model:
    """A model that takes raw input (rows, *raw_shape) and does what training data went through."""
    inputs = keras.Input(fitted.raw_shape, name="raw_input")
    x = inputs
    for layer in preprocessing_layers(fitted):
        x = layer(x)
    return keras.Model(inputs, model(x), name="exported")


def _restore(model: keras.Model, task: ExportTask) -> None:
    checkpoint = load_checkpoint(task.checkpoint)
    if checkpoint is None:
        raise HpoError(
            f"the checkpoint of trial {task.number} is missing or damaged: {task.checkpoint}; "
            "is --artifacts the folder that the workers used?"
        )
    if [tuple(w.shape) for w in model.weights] != [w.shape for w in checkpoint.weights]:
        raise HpoError(
            f"the checkpoint of trial {task.number} does not fit the model that the builder makes "
            "now; has the builder changed since the search?"
        )
    for variable, value in zip(model.weights, checkpoint.weights, strict=True):
        variable.assign(value)


def _evaluate(
    model: keras.Model,
    built: TrialModel,
    signature: DataSignature,
    task: ExportTask,
    part: PartName,
) -> dict[str, float]:
    """Metrics of the exported model on raw rows, by their names in training."""
    raw = open_raw_part(task.spec.data, task.project, part)
    y = targets_for(built.model, raw.y, signature)
    return evaluate_raw(model, built.model, raw.x, y)


def evaluate_raw(
    model: keras.Model, trained: keras.Model, x: NDArray[Any], y: NDArray[Any]
) -> dict[str, float]:
    """Runs `model` on raw `x` and scores it with the compiled loss and metrics of `trained`."""
    predicted = model.predict(x, batch_size=1024, verbose=0)
    trained.reset_metrics()
    loss = float(trained.compute_loss(x=None, y=y, y_pred=predicted, training=False))
    trained.compute_metrics(x=None, y=y, y_pred=predicted)
    found = {name: float(np.asarray(value)) for name, value in trained.get_metrics_result().items()}
    return found | {"loss": loss}


def _check_value(task: ExportTask, validation: dict[str, float]) -> None:
    metric = task.spec.objective.metric.removeprefix("val_")
    if not task.spec.objective.metric.startswith("val_") or metric not in validation:
        return
    found = validation[metric]
    if not math.isclose(found, task.value, rel_tol=1e-3, abs_tol=1e-4):
        raise HpoError(
            f"trial {task.number} reached {task.spec.objective.metric} {task.value:.6g} in the "
            f"search, but its exported model reaches {found:.6g}; nothing was exported. Has the "
            "builder, the data or a library changed since?"
        )


def _write_config(task: ExportTask, built: TrialModel, path: Path) -> None:
    spec = task.spec
    fixed = {name: value for name, value in built.values.taken.items() if _is_scalar(value)}
    search = Search(trials=1)
    config = spec.model_copy(
        update={
            "name": f"{spec.name}-best",
            "space": _only_known(spec, built, fixed),
            "search": search,
        }
    )
    header = f"The best configuration of the study {spec.name}: trial {task.number}."
    write_study_file(config, path, header)


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float | str)


def _only_known(spec: StudySpec, built: TrialModel, fixed: dict[str, Any]) -> dict[str, Any]:
    """The trainer's own parameters stand there only where they differ from `training:`."""
    declared = built.values.declared
    return {
        name: value
        for name, value in fixed.items()
        if name in declared or name in built.values.asked or getattr(spec.training, name) != value
    }


def _metrics(
    task: ExportTask,
    built: TrialModel,
    signature: DataSignature,
    validation: dict[str, float],
    test: dict[str, float],
) -> dict[str, Any]:
    train_rows, validation_rows, test_rows = signature.rows
    return {
        "study": task.spec.name,
        "trial": task.number,
        "objective": {**task.spec.objective.model_dump(), "value": task.value},
        "validation": validation,
        "test": test,
        "rows": {"train": train_rows, "validation": validation_rows, "test": test_rows},
        "task": signature.task,
        "class_names": signature.class_names,
        "data_fingerprint": signature.fingerprint,
        "model_parameters": built.model.count_params(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "keras-hpo": __version__,
            "keras": keras.__version__,
            "tensorflow": _tensorflow_version(),
            "optuna": version("optuna"),
        },
    }


def _tensorflow_version() -> str:
    import tensorflow as tf

    return str(tf.__version__)
