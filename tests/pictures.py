"""Real pictures for tests that need no network: scikit-learn's digits as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path, count: int | None = None) -> None:
    """Writes the digits, 8 by 8 in shades of grey, into a folder for each class."""
    digits = load_digits()
    for index, picture in enumerate(digits.images[:count]):
        place = folder / str(digits.target[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15).astype(np.uint8)).save(place / f"{index:04}.png")
