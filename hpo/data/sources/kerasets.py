"""The sets of `keras.datasets`. Needs Keras."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from hpo.data.raw import RawData
from hpo.errors import DataError

# Where `keras.utils.get_file` keeps the files, below the cache's folder `datasets`.
_FILES = {
    "mnist": ("mnist.npz",),
    "fashion_mnist": tuple(
        f"fashion-mnist/{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("labels-idx1", "images-idx3")
    ),
    "cifar10": ("cifar-10-batches-py-target_archive",),
    "cifar100": ("cifar-100-python-target_archive",),
    "california_housing": ("california_housing.npz",),
}
_CLASSES = {
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}
# A network that swallows packets must not hold a study up for minutes.
_TIMEOUT = 20.0


def load_keras(name: str) -> RawData:
    """One of Keras's sets; the rows of its own test part are marked as that.

    Raises DataError when the set is not in Keras's cache and can't be fetched, or is damaged.
    """
    # Looked up before, because Keras removes a file that it fails to fetch again.
    lacking = [file for file in _files(name) if not file.exists()]
    try:
        with _impatient():
            (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    # Keras raises bare exceptions for what goes wrong on the network.
    except Exception as error:
        raise DataError(_missing(name, lacking, error)) from error
    return RawData(
        x=np.concatenate([x, x_test]),
        y=np.concatenate([y, y_test]),
        class_names=_CLASSES.get(name),
        parts=np.repeat(["", "test"], [len(x), len(x_test)]),
    )


def _missing(name: str, lacking: list[Path], error: Exception) -> str:
    files = _files(name)
    state = (
        f"is not in Keras's cache, which lacks {lacking[0]}"
        if lacking
        else f"is damaged in Keras's cache, or of another version: {files[0]}"
    )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"Keras's data set {name} {state}; fetching it failed: {reason}. On a machine with a "
        f"network run `python -c 'import keras; keras.datasets.{name}.load_data()'` and copy "
        f"{files[0].name} from its ~/.keras/datasets to {files[0].parent}, or set KERAS_HOME to a "
        "folder that has it in datasets."
    )


def _files(name: str) -> list[Path]:
    home = Path(os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser())
    if not os.access(home, os.W_OK):
        # Where Keras looks then.
        home = Path(tempfile.gettempdir()) / ".keras"
    return [home / "datasets" / file for file in _FILES[name]]


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
