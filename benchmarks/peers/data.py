"""The data of the tasks: real sets that need no network."""

from __future__ import annotations

import functools
import gzip
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Where Debian's package puts it.
_FASHION = Path("/usr/share/datasets/fashion-mnist")
_FASHION_ROWS = 10_000
_FASHION_VALIDATION_ROWS = 5_000


class Rows(NamedTuple):
    """Features as float32 (rows, features) and class numbers as int32 (rows,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int32]


# By the names train, validation and test, which is also what `source: {type: python}` takes.
Parts = dict[str, Rows]


@functools.cache
def digits() -> Parts:
    """scikit-learn's digits, 8 x 8 pixels: 1,077 rows train, 360 validate, 360 test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    split = functools.partial(train_test_split, test_size=360, random_state=0)
    rest_x, test_x, rest_y, test_y = split(x, y, stratify=y)
    train_x, held_x, train_y, held_y = split(rest_x, rest_y, stratify=rest_y)
    return {
        "train": _rows(train_x, train_y, 16),
        "validation": _rows(held_x, held_y, 16),
        "test": _rows(test_x, test_y, 16),
    }


@functools.cache
def fashion() -> Parts:
    """Fashion-MNIST, 28 x 28 pixels: 10,000 rows train, the next 5,000 validate, 10,000 test.

    Raises:
        FileNotFoundError: The files are not on this machine; says where they come from.
    """
    x, y = _idx("train-images-idx3-ubyte"), _idx("train-labels-idx1-ubyte")
    end = _FASHION_ROWS + _FASHION_VALIDATION_ROWS
    return {
        "train": _rows(x[:_FASHION_ROWS], y[:_FASHION_ROWS], 255),
        "validation": _rows(x[_FASHION_ROWS:end], y[_FASHION_ROWS:end], 255),
        "test": _rows(_idx("t10k-images-idx3-ubyte"), _idx("t10k-labels-idx1-ubyte"), 255),
    }


@functools.cache
def digit_pictures() -> Parts:
    """The digits as pictures of 32 x 32 x 1, each pixel four by four: work for a convolution."""

    def enlarged(rows: Rows) -> Rows:
        pictures = rows.x.reshape(-1, 8, 8, 1).repeat(4, axis=1).repeat(4, axis=2)
        return Rows(pictures, rows.y)

    return {part: enlarged(rows) for part, rows in digits().items()}


def _rows(x: NDArray[Any], y: NDArray[Any], highest: int) -> Rows:
    flat = x.reshape(len(x), -1).astype(np.float32) / np.float32(highest)
    return Rows(flat, y.astype(np.int32))


def _idx(name: str) -> NDArray[np.uint8]:
    """An array in the IDX format: two zeros, type, number of axes, their lengths, the numbers."""
    content = _read(name)
    assert content[:3] == b"\0\0\x08", f"{name} does not hold bytes in the IDX format"
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read(name: str) -> bytes:
    folder = Path(os.environ.get("FASHION_MNIST", _FASHION))
    if (folder / name).exists():
        return (folder / name).read_bytes()
    if (folder / f"{name}.gz").exists():
        return gzip.decompress((folder / f"{name}.gz").read_bytes())
    raise FileNotFoundError(
        f"Fashion-MNIST is not in {folder}: there is no {name} and no {name}.gz. Install Debian's "
        "package dataset-fashion-mnist, or name the folder with its four files in FASHION_MNIST."
    )
