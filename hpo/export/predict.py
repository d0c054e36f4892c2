"""Predictions of an exported model for a file of raw rows. Needs Keras; runs in a trainer."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hpo.data.checks import check_features, check_table, named_arrays
from hpo.data.features import Features
from hpo.data.layers import plain_name, raw_batches
from hpo.data.padding import check_sequences
from hpo.data.preprocessing import fits
from hpo.data.rows import read_rows, read_series, row_names
from hpo.errors import DataError, UsageError


def predict_file(bundle: Path, file: Path, array: str) -> list[dict[str, Any]]:
    """One row of plain values for each row of the file, or for each picture with its `file`.

    Args:
        bundle: Folder that `hpo export` wrote.
        file: Raw rows in the form of the data that the model was trained on: .npz, .npy or .csv
            of features, a table with its columns, a picture, a folder or a table of pictures,
            series in long form (a row for each series comes back, with its `id`).
        array: Name of the array in a .npz file.

    Raises:
        UsageError: The bundle or the file is not there or not what it should be.
        DataError: The rows do not have the shape that the model takes.
    """
    facts, model = _open_bundle(bundle)
    form = facts["input"]
    ids: list[Any] | None = None
    x: Features
    if form["type"] == "sequences":
        ids, x = read_series(file, form)
    else:
        x = read_rows(file, form, array)
    if form["type"] in ("arrays", "images"):
        _check_arrays(x, model, form, file)
    else:
        _check_table(x, form, file)
    outputs = np.asarray(model.predict(raw_batches(x), verbose=0))
    if facts["outputs"] == "logits":
        to_shares = keras.ops.softmax if facts["task"] == "multiclass" else keras.ops.sigmoid
        outputs = np.asarray(to_shares(outputs))
    rows = [_row(output, facts) for output in outputs]
    if ids is not None:
        return [{"id": name, **row} for name, row in zip(ids, rows, strict=True)]
    names = row_names(file, form)
    if names is None:
        return rows
    return [{"file": name, **row} for name, row in zip(names, rows, strict=True)]


def _open_bundle(bundle: Path) -> tuple[dict[str, Any], keras.Model]:
    metrics, saved = bundle / "metrics.json", bundle / "model.keras"
    if not metrics.is_file() or not saved.is_file():
        raise UsageError(
            f"{bundle} is no exported bundle: expected a folder with model.keras and metrics.json, "
            "as hpo export writes it"
        )
    facts = _read_facts(metrics)
    if facts["custom_objects"]:
        raise UsageError(_words_of_custom(bundle, facts["custom_objects"]))
    try:
        return facts, keras.models.load_model(saved, safe_mode=True)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{saved} can't be loaded, export it again: {error}") from None


def _words_of_custom(bundle: Path, names: list[str]) -> str:
    own = [name for name in names if name != "Lambda"]
    has, options = [], []
    if own:
        has.append(f"needs {', '.join(own)}, which Keras does not bring")
        options.append("custom_objects=...")
    if own != names:
        has.append("has Lambda layers, whose Python code is run")
        options.append("safe_mode=False")
    trust = "" if own == names else ", if you trust the code of whoever made it"
    return (
        f"the model in {bundle} {', and '.join(has)}; load it with "
        f"keras.models.load_model(..., {', '.join(options)}) instead{trust}"
    )


def _read_facts(metrics: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(metrics.read_text())
    except ValueError as error:
        raise UsageError(f"{metrics} can't be read, export it again: {error}") from None
    missing = sorted({"task", "class_names", "input", "outputs", "custom_objects"} - set(facts))
    if missing:
        raise UsageError(f"{metrics} lacks {', '.join(missing)}, export the model again")
    return facts


def _check_arrays(x: Features, model: keras.Model, form: Mapping[str, Any], file: Path) -> None:
    _check_shape(x, model, file)
    gaps = bool(form.get("gaps"))
    padded = bool(form.get("mask")) and model.input.shape[1] is None
    try:
        check_features(x, gaps=gaps or padded, otherwise="")
        if padded:
            check_sequences(x, gaps_allowed=gaps, otherwise="")
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _check_table(x: Features, form: Mapping[str, Any], file: Path) -> None:
    """For columns and series, of which reading has checked the rest."""
    try:
        # Bundles of before do not say whether gaps are filled in.
        columns = x if isinstance(x, dict) else {"values": x}
        check_table(columns, gaps=form.get("gaps", True), otherwise="")
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _check_shape(x: Features, model: keras.Model, file: Path) -> None:
    shapes = keras.tree.map_structure(lambda each: tuple(each.shape[1:]), model.input)
    for name, array in named_arrays(x):
        shape = shapes[plain_name(name)] if isinstance(shapes, dict) else shapes
        if not array.size:
            raise DataError(f"{file}: expected at least one row")
        if not fits(array.shape[1:], shape):
            raise DataError(
                f"{file}: the model takes rows of shape {shape}, received {array.shape[1:]}"
            )


def _row(output: NDArray[Any], facts: dict[str, Any]) -> dict[str, Any]:
    if facts["task"] == "regression":
        if "horizon" in facts.get("input", {}):
            return {"prediction": _forecast(output, facts["input"])}
        values = [float(value) for value in output]
        return {"prediction": values[0] if len(values) == 1 else values}
    names = facts["class_names"]
    if facts["task"] == "multilabel":
        labels = {name: float(share) for name, share in zip(names, output, strict=True)}
        return {"prediction": [name for name in names if labels[name] >= 0.5], "labels": labels}
    shares = output if facts["task"] == "multiclass" else np.array([1 - output[0], output[0]])
    best = int(np.argmax(shares))
    probabilities = {name: float(share) for name, share in zip(names, shares, strict=True)}
    return {"prediction": names[best], "probability": float(shares[best]), "classes": probabilities}


def _forecast(output: NDArray[Any], form: Mapping[str, Any]) -> Any:
    """The next steps, by name where several columns are forecast."""
    steps = output.reshape(form["horizon"], len(form["targets"])).T
    columns = {
        name: [float(v) for v in column]
        for name, column in zip(form["targets"], steps, strict=True)
    }
    return columns if len(columns) > 1 else next(iter(columns.values()))
