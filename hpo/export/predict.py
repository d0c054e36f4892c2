"""Predictions of an exported model for a file of raw rows. Needs Keras; runs in a trainer."""

from __future__ import annotations

import json
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError, UsageError


def predict_file(bundle: Path, file: Path, array: str) -> list[dict[str, Any]]:
    """One row of plain values for each row of the file.

    Args:
        bundle: Folder that `hpo export` wrote.
        file: .npz, .npy or .csv of raw features, one row a sample.
        array: Name of the array in a .npz file.

    Raises:
        UsageError: The bundle or the file is not there or not what it should be.
        DataError: The rows do not have the shape that the model takes.
    """
    facts, model = _open_bundle(bundle)
    x = _read(file, array)
    _check_shape(x, tuple(model.input_shape[1:]), file)
    outputs = np.asarray(model.predict(x, batch_size=256, verbose=0))
    if facts["outputs"] == "logits":
        to_shares = keras.ops.sigmoid if facts["task"] == "binary" else keras.ops.softmax
        outputs = np.asarray(to_shares(outputs))
    return [_row(output, facts) for output in outputs]


def _open_bundle(bundle: Path) -> tuple[dict[str, Any], keras.Model]:
    metrics, saved = bundle / "metrics.json", bundle / "model.keras"
    if not metrics.is_file() or not saved.is_file():
        raise UsageError(
            f"{bundle} is no exported bundle: expected a folder with model.keras and metrics.json, "
            "as hpo export writes it"
        )
    facts = _read_facts(metrics)
    if facts["custom_objects"]:
        raise UsageError(
            f"the model in {bundle} needs {', '.join(facts['custom_objects'])}, which Keras does "
            "not bring; load it with keras.models.load_model(..., custom_objects=...) instead"
        )
    try:
        return facts, keras.models.load_model(saved, safe_mode=True)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{saved} can't be loaded, export it again: {error}") from None


def _read_facts(metrics: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(metrics.read_text())
    except ValueError as error:
        raise UsageError(f"{metrics} can't be read, export it again: {error}") from None
    missing = sorted({"task", "class_names", "outputs", "custom_objects"} - set(facts))
    if missing:
        raise UsageError(f"{metrics} lacks {', '.join(missing)}, export the model again")
    return facts


def _read(file: Path, array: str) -> NDArray[Any]:
    if not file.is_file():
        raise UsageError(f"there is no file {file} to predict from")
    try:
        if file.suffix == ".csv":
            return _read_csv(file)
        # np.load leaves a file open that it can't read, unless someone else opened it.
        with file.open("rb") as stream:
            content = np.load(stream, allow_pickle=False)
            return content if isinstance(content, np.ndarray) else _pick(content, array, file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file} can't be read as .npz, .npy or .csv of numbers: {error}") from None


def _read_csv(file: Path) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # About an empty file, which the check of the rows tells of.
        warnings.simplefilter("ignore")
        return np.loadtxt(file, delimiter=",", ndmin=2)


def _pick(content: Any, array: str, file: Path) -> NDArray[Any]:
    if array not in content:
        names = ", ".join(content.files)
        raise DataError(f"{file} holds no array {array!r}; it holds: {names} (see --array)")
    return np.asarray(content[array])


def _check_shape(x: NDArray[Any], shape: tuple[int, ...], file: Path) -> None:
    if not x.size:
        raise DataError(f"{file}: expected at least one row")
    if x.shape[1:] != shape:
        raise DataError(f"{file}: the model takes rows of shape {shape}, received {x.shape[1:]}")
    if x.dtype.kind not in "biuf" or not np.isfinite(x.astype(np.float32)).all():
        raise DataError(f"{file}: expected finite numbers")


def _row(output: NDArray[Any], facts: dict[str, Any]) -> dict[str, Any]:
    if facts["task"] == "regression":
        values = [float(value) for value in output]
        return {"prediction": values[0] if len(values) == 1 else values}
    names = facts["class_names"]
    shares = output if facts["task"] == "multiclass" else np.array([1 - output[0], output[0]])
    best = int(np.argmax(shares))
    probabilities = {name: float(share) for name, share in zip(names, shares, strict=True)}
    return {"prediction": names[best], "probability": float(shares[best]), "classes": probabilities}
