"""`hpo init`: a small project that runs as it is, to be changed into one's own."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from hpo.errors import UsageError


def create_project(folder: Path, template: str) -> list[Path]:
    """Writes a builder, a study file, how to run them, and data that they run with.

    Raises:
        UsageError: The folder holds something already, or can't be written; nothing was written.
    """
    with _told(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not empty; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for source in files("hpo").joinpath("templates", template).iterdir():
            if source.is_file():
                (folder / source.name).write_bytes(source.read_bytes())
        _DATA[template](folder)
        (folder / ".gitignore").write_text("*.db\n*.db-shm\n*.db-wal\nartifacts/\nbundles/\n")
    return sorted(path for path in folder.iterdir())


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"can't write to {folder}: {error.strerror}; name another folder"
        ) from None


def _write_table(folder: Path) -> None:
    """scikit-learn's wine: 178 rows of 13 measures."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*wine.feature_names, "cultivar"])
        for row, target in zip(wine.data.tolist(), wine.target, strict=True):
            writer.writerow([*row, wine.target_names[target]])


def _write_pictures(folder: Path) -> None:
    """500 of scikit-learn's handwritten digits."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(500):
        home = folder / "pictures" / str(digits.target[index])
        home.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[index] * 15).astype(np.uint8)
        Image.fromarray(pixels).save(home / f"{index:03d}.png")


def _write_series(folder: Path) -> None:
    """240 made-up waves: sine, square and saw, of 10 to 24 steps, with noise."""
    import numpy as np

    random = np.random.default_rng(0)
    shapes: dict[str, Callable[[Any], Any]] = {
        "sine": np.sin,
        "square": lambda turn: np.sign(np.sin(turn)),
        "saw": lambda turn: turn / np.pi % 2 - 1,
    }
    with (folder / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["series", "step", "value", "shape"])
        for series in range(240):
            name = list(shapes)[series % len(shapes)]
            steps = np.arange(random.integers(10, 25))
            wave = shapes[name](steps * random.uniform(0.3, 0.9) + random.uniform(0, 2 * np.pi))
            noisy = wave + random.normal(0, 0.2, len(steps))
            for step, value in enumerate(noisy.round(3).tolist()):
                writer.writerow([series, step, value, name])


def _write_nothing(folder: Path) -> None:
    """The study takes a set that scikit-learn brings."""


_DATA: dict[str, Callable[[Path], None]] = {
    "image": _write_pictures,
    "sequence": _write_series,
    "table": _write_table,
    "kerastuner": _write_nothing,
}
