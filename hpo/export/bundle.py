"""The exported bundle: the best model with its preprocessing inside, and what to know of it.

::

    bundle/
      model.keras     takes raw input; loads with Keras alone, safe_mode=True
      config.yaml     a study file with every hyperparameter fixed, fit to be run again
      metrics.json    value in the search, validation and held-out test metrics, data, versions

`write_bundle` needs Keras and runs in a trainer process. The folder is written beside and renamed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import shutil
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hpo import __version__
from hpo.artifacts import shown
from hpo.data import DataSignature, Part, Preparation, open_raw_part
from hpo.data.checks import named_arrays
from hpo.data.chunks import LARGE, row_bytes
from hpo.data.features import Features, count_rows, each_array, take
from hpo.data.joined import join_rows
from hpo.data.layers import raw_batches, raw_inputs
from hpo.errors import HpoError
from hpo.export.values import Bundle, ExportTask
from hpo.spec import StudySpec, write_study_file
from hpo.spec.models import Parameter, Scalar
from hpo.training.bench import Bench, TrialModel, build_model, prepare
from hpo.training.checkpoints import Checkpoint, load_checkpoint
from hpo.training.compiling import has_logits
from hpo.training.epochs import evaluate
from hpo.training.targets import targets_for
from hpo.usercode import describe

_FILES = ("model.keras", "config.yaml", "metrics.json")


def write_bundle(task: ExportTask) -> Bundle:
    """Builds, restores, evaluates and saves the model of a trial.

    Raises:
        HpoError: The data is not what was searched on, the checkpoint is gone or does not fit, or
            the model no longer reaches the value that the search reported. What stood in the folder
            before is left as it is.
    """
    bench = prepare(task.spec, task.project)
    _check_data(bench, task)
    built = _build(bench, task)
    fitted = _preprocessing(bench)
    inputs, prepared = raw_inputs(fitted)
    # May be the call that builds the model inside.
    model = keras.Model(inputs, built.model(prepared), name="exported")
    checkpoint = _restore(built.model, task)
    validation = _evaluate(built, bench.data.validation)
    _check_value(task, validation, own_fit=bench.builder.own_fit is not None)
    raw = open_raw_part(task.spec.data, task.project, "test")
    x = _prepared_inside(keras.Model(inputs, prepared), raw.x, fitted)
    test = _evaluate(built, Part(x, raw.y))
    metrics = _metrics(task, built, checkpoint.epoch, validation, test)
    _forget_compilation(built.model)
    folder = task.folder.resolve()
    with _written_beside(folder) as temporary:
        _save(model, temporary / "model.keras", task)
        _write_config(task, built, temporary / "config.yaml")
        metrics["custom_objects"] = _check_reloads(model, temporary / "model.keras", task, raw.x)
        text = json.dumps(_finite(metrics), indent=2, allow_nan=False)
        (temporary / "metrics.json").write_text(text + "\n")
    return Bundle(task.folder, validation, test)


def _check_data(bench: Bench, task: ExportTask) -> None:
    """Rows that the model was trained on could stand in the test part of other data."""
    found = bench.data.signature.fingerprint
    if found != task.data:
        raise HpoError(
            f"the data has changed since the search: its fingerprint was {task.data}, now it is "
            f"{found}; nothing was exported. Bring the data back as it was, or search on the new "
            "data under another name."
        )


def _preprocessing(bench: Bench) -> Preparation:
    assert bench.data.preprocessing is not None, "the data was opened here"
    return bench.data.preprocessing


def _prepared_inside(layers: keras.Model, x: Features, fitted: Preparation) -> Features:
    """Raw rows as the layers in front of the exported model prepare them."""
    # Some at a time, because each of them is held several times meanwhile.
    size = max(1, LARGE // sum(map(row_bytes, each_array(x))))
    parts = []
    for start in range(0, count_rows(x), size):
        some = take(x, slice(start, start + size))
        parts.append(layers.predict(raw_batches(some), verbose=0))
        _check_prepared(parts[-1], fitted.apply(some))
    return join_rows(parts)


def _check_prepared(inside: Features, searched: Features) -> None:
    for (name, one), (_, other) in zip(named_arrays(inside), named_arrays(searched), strict=True):
        # Both are float32 throughout; a library may reckon the last digits otherwise.
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-5, atol=1e-6):
            raise HpoError(
                f"the layers inside of the exported model prepare the test rows' {name} otherwise "
                "than the search does; nothing was exported. Is it another version of Keras or "
                "TensorFlow than the search had?"
            )


@contextlib.contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when all went well, with its other files.

    Raises:
        HpoError: It can't be written: a full disk, a missing right.
    """
    try:
        with _beside(folder) as temporary:
            yield temporary
    except OSError as error:
        raise HpoError(
            f"the bundle can't be written to {folder}: {error.strerror or error}; make room or "
            "choose another --out, nothing was exported"
        ) from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    temporary, old = (folder.with_name(f".{folder.name}.{word}") for word in ("tmp", "old"))
    _let_go(old, folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _let_go(old, folder)


def _let_go(old: Path, folder: Path) -> None:
    """Ends a change of folders, also one that a killed export has left: nobody's files are lost."""
    if not old.exists():
        return
    if not folder.exists():
        old.rename(folder)
        return
    for entry in old.iterdir():
        if entry.name not in _FILES and not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
    shutil.rmtree(old)


def _build(bench: Bench, task: ExportTask) -> TrialModel:
    def value(name: str, _parameter: Parameter) -> Scalar:
        if name not in task.params:
            raise HpoError(
                f"the builder asks for {name!r}, which trial {task.number} does not have; "
                "has the builder changed since the search?"
            )
        return task.params[name]

    try:
        return build_model(bench, value, task.seed)
    except HpoError:
        raise
    except Exception as error:
        raise HpoError(
            f"with the values of trial {task.number} the builder {bench.builder.name} raised "
            f"{describe(error)}; has it changed since the search?"
        ) from error


def _restore(model: keras.Model, task: ExportTask) -> Checkpoint:
    checkpoint = load_checkpoint(task.checkpoint)
    if checkpoint is None:
        raise HpoError(
            f"the checkpoint of trial {task.number} is missing or damaged: "
            f"{shown(task.checkpoint)}; is --artifacts the place that the workers used?"
        )
    if [tuple(w.shape) for w in model.weights] != [w.shape for w in checkpoint.weights]:
        raise HpoError(
            f"the checkpoint of trial {task.number} does not fit the model that the builder makes "
            "now; has the builder changed since the search?"
        )
    for variable, value in zip(model.weights, checkpoint.weights, strict=True):
        variable.assign(value)
    return checkpoint


def _forget_compilation(model: keras.Model) -> None:
    """A loss or a metric of the user's would keep Keras from loading what is to predict alone."""
    for layer in (model, *model._flatten_layers()):
        if isinstance(layer, keras.Model):
            layer.compiled = False


def _evaluate(built: TrialModel, part: Part) -> dict[str, float]:
    """The metrics of a part, found as the search finds them."""
    y = targets_for(built.model, part.y, built.signature)
    return evaluate(built.model, (part.x, y), built.settings.batch_size)


def _save(model: keras.Model, path: Path, task: ExportTask) -> None:
    try:
        model.save(path)
    except OSError:
        raise
    except Exception as error:
        raise HpoError(
            f"Keras can't save the model of trial {task.number}: {describe(error)}"
        ) from error


def _check_reloads(model: keras.Model, saved: Path, task: ExportTask, rows: Features) -> list[str]:
    """Loads the saved model and compares; the objects that Keras alone could not load."""
    custom = _custom_objects(saved)
    if custom:
        return custom
    again = keras.models.load_model(saved, safe_mode=True)
    x = raw_batches(rows)
    one, other = (each.predict(x, verbose=0) for each in (model, again))
    if not np.allclose(one, other, rtol=1e-4, atol=1e-5):
        raise HpoError(
            f"the model of trial {task.number} predicts something else after it was saved and "
            "loaded; nothing was exported. Does a layer keep state outside of its weights?"
        )
    return []


def _custom_objects(saved: Path) -> list[str]:
    """Names of layers and functions in a .keras file that come from elsewhere than Keras."""
    with zipfile.ZipFile(saved) as archive:
        content = json.loads(archive.read("config.json"))
    found: set[str] = set()
    remaining: list[Any] = [content]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            if _is_custom(value):
                found.add(str(value["config"] if _is_function(value) else value["class_name"]))
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value
    return sorted(found)


def _is_custom(value: dict[str, Any]) -> bool:
    # A Lambda layer holds code, which safe mode does not load.
    if _is_function(value) or value.get("class_name") == "Lambda":
        return True
    return not f"{value.get('module') or 'keras'}.".startswith(("keras.", "builtins."))


def _is_function(value: dict[str, Any]) -> bool:
    return value.get("class_name") == "function"


def _check_value(task: ExportTask, validation: dict[str, float], *, own_fit: bool) -> None:
    metric = task.spec.objective.metric.removeprefix("val_")
    if not task.spec.objective.metric.startswith("val_") or metric not in validation:
        return
    found = validation[metric]
    if math.isclose(found, task.value, rel_tol=1e-3, abs_tol=1e-4):
        return
    other = (
        " If not, the HyperModel's own fit has trained on other features than it was given, or "
        "another model, or made up the value by itself: this model does not do on raw rows what "
        "fit reported."
    )
    raise HpoError(
        f"trial {task.number} reached {task.spec.objective.metric} {task.value:.6g} in the "
        f"search, but its exported model reaches {found:.6g}; nothing was exported. Has the "
        f"builder, the data or a library changed since?{other if own_fit else ''}"
    )


def _write_config(task: ExportTask, built: TrialModel, path: Path) -> None:
    content = task.spec.model_dump() | {
        "name": f"{task.spec.name[:95]}-best",
        "space": _fixed(task, built),
        "search": {"trials": 1},
    }
    header = f"The best configuration of the study {task.spec.name}: trial {task.number}."
    write_study_file(StudySpec.model_validate(content), path, header)


def _fixed(task: ExportTask, built: TrialModel) -> dict[str, Scalar]:
    """Every value that the model was made from.

    The trainer's own parameters are left out where `training:` says them, or where a condition
    (`when`) kept them out of the trial; a builder asks for its own ones in any case.
    """
    declared, space = built.values.declared, task.spec.space
    # A HyperModel's own `fit` has asked for the others.
    return {
        name: value for name, value in task.params.items() if name not in built.values.taken
    } | {
        name: value
        for name, value in built.values.taken.items()
        if isinstance(value, Scalar)
        and (name in declared or name in task.params or isinstance(space.get(name), Scalar))
    }


def _metrics(
    task: ExportTask,
    built: TrialModel,
    epoch: int,
    validation: dict[str, float],
    test: dict[str, float],
) -> dict[str, Any]:
    signature = built.signature
    train_rows, validation_rows, test_rows = signature.rows
    return {
        "study": task.spec.name,
        "trial": task.number,
        "objective": {**task.spec.objective.model_dump(), "value": task.value},
        "epoch": epoch,
        "hyperparameters": _fixed(task, built),
        "validation": validation,
        "test": test,
        "rows": {"train": train_rows, "validation": validation_rows, "test": test_rows},
        "task": signature.task,
        "class_names": signature.class_names,
        "input": signature.form,
        "outputs": _outputs(built.model, signature),
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


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _outputs(model: keras.Model, signature: DataSignature) -> str:
    """What the numbers are that the model puts out."""
    if signature.task == "regression":
        return "values"
    return "logits" if has_logits(model) else "probabilities"


def _tensorflow_version() -> str:
    import tensorflow as tf

    return str(tf.__version__)
