"""A few pictures of the data: targets, columns, samples. Of training rows, targets of all parts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpo.data.checks import named_arrays
from hpo.data.features import Array
from hpo.data.opening import OpenedData
from hpo.errors import UsageError

_MOST = 16
_BARS = 20


def draw_plots(opened: OpenedData, folder: Path) -> tuple[Path, ...]:
    """Draws `targets.png`, and `columns.png` or `samples.png` where the data has such.

    Raises UsageError when the folder can't be written.
    """
    figures = {"targets": _targets(opened)}
    train = opened.split.train
    arrays = [(name, _shaped(array[train], opened)) for name, array in named_arrays(opened.raw.x)]
    kinds = opened.raw.form.get("columns", {})
    flat = [
        (name, array.astype("M8[D]") if kinds[name]["kind"] == "date" else array)
        for name, array in arrays
        if array.ndim == 1 and kinds[name]["kind"] != "text"
    ]
    flat += [
        (f"{name}[{i}]", array[:, i])
        for name, array in arrays
        if array.ndim == 2
        for i in range(array.shape[1])
    ]
    if flat:
        figures["columns"] = _columns(flat[:_MOST])
    pictures = [array for _, array in arrays if array.ndim == 4]
    if pictures:
        figures["samples"] = _pictures(pictures[0][:_MOST])
    return _save(figures, folder)


def _shaped(array: Array, opened: OpenedData) -> Array:
    """Flat pictures in the shape that the study gives them."""
    shape = opened.preprocess.reshape
    return array.reshape(len(array), *shape) if shape and len(shape) == 3 else array


def _save(figures: dict[str, Figure], folder: Path) -> tuple[Path, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png")
    except OSError as error:
        raise UsageError(
            f"can't write plots to {folder}: {error.strerror}; name another folder"
        ) from None
    return tuple(folder / f"{name}.png" for name in figures)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _targets(opened: OpenedData) -> Figure:
    figure = _figure(7, 3.5)
    axes = figure.subplots()
    targets, names = opened.targets, opened.targets.class_names
    for index, (part, rows) in enumerate(opened.split.parts()):
        y = targets.y[rows]
        if names is None:
            axes.hist(y.reshape(len(y), -1)[:, 0], bins=_BARS, alpha=0.5, label=part)
            continue
        counts = y.sum(axis=0) if y.ndim == 2 else np.bincount(y, minlength=len(names))
        axes.bar(np.arange(len(names)) + 0.27 * (index - 1), counts / len(y), 0.25, label=part)
    if names is not None:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_ylabel("share of rows")
    axes.set_title("targets")
    axes.margins(y=0.15)
    axes.legend()
    return figure


def _columns(columns: list[tuple[str, Array]]) -> Figure:
    figure, grid = _grid(len(columns), 2.4, 1.8)
    for axes, (name, values) in zip(grid, columns, strict=False):
        axes.set_title(name[:24], fontsize=8)
        axes.tick_params(labelsize=6)
        if values.dtype.kind == "U":
            texts, counts = np.unique(values, return_counts=True)
            order = np.argsort(-counts)[:8]
            axes.barh([text[:14] for text in texts[order]], counts[order])
            axes.invert_yaxis()
        else:
            axes.hist(values[np.isfinite(values)], bins=_BARS)
            axes.tick_params(axis="x", labelrotation=30 if values.dtype.kind == "M" else 0)
    return figure


def _pictures(pictures: Array) -> Figure:
    figure, grid = _grid(len(pictures), 1.5, 1.5)
    for axes, picture in zip(grid, pictures, strict=False):
        scaled = picture.astype(float) - picture.min()
        axes.imshow(np.squeeze(scaled / max(scaled.max(), 1e-9)), cmap="gray")
    return figure


def _grid(count: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    across = min(count, 4)
    down = math.ceil(count / across)
    figure = _figure(width * across, height * down)
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid
