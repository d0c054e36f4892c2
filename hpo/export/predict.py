"""Predictions of an exported model for a file of raw rows. Needs Keras; runs in a trainer."""

from __future__ import annotations

import json
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
    outputs = np.asarray(model.predict(x, batch_size=1024, verbose=0))
    return [_row(output, facts) for output in outputs]


def _open_bundle(bundle: Path) -> tuple[dict[str, Any], keras.Model]:
    metrics, saved = bundle / "metrics.json", bundle / "model.keras"
    if not metrics.is_file() or not saved.is_file():
        raise UsageError(
            f"{bundle} is no exported bundle: expected a folder with model.keras and metrics.json, "
            "as hpo export writes it"
        )
    return json.loads(metrics.read_text()), keras.models.load_model(saved, safe_mode=True)


def _read(file: Path, array: str) -> NDArray[Any]:
    if not file.is_file():
        raise UsageError(f"there is no file {file} to predict from")
    try:
        if file.suffix == ".csv":
            return np.loadtxt(file, delimiter=",", ndmin=2, dtype=np.float32)
        content = np.load(file, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise DataError(f"{file} can't be read as .npz, .npy or .csv of numbers: {error}") from None
    if isinstance(content, np.ndarray):
        return content
    with content:
        if array not in content:
            names = ", ".join(content.files)
            raise DataError(f"{file} holds no array {array!r}; it holds: {names} (see --array)")
        return np.asarray(content[array])


def _check_shape(x: NDArray[Any], shape: tuple[int, ...], file: Path) -> None:
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
