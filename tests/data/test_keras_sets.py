"""keras.datasets out of a cache; nothing is fetched, because every way to a network is closed."""

from __future__ import annotations

import gzip
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from hpo.data import open_search_data
from hpo.data.sources import load_source
from hpo.errors import DataError
from hpo.spec.models import DataSpec

pytestmark = pytest.mark.keras


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Keras, on a machine without a network."""
    from keras.src.backend import config

    home = tmp_path / "keras"
    (home / "datasets").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(home))
    # Keras has read the variable when it was imported.
    monkeypatch.setattr(config, "_KERAS_DIR", str(home))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # It keeps the proxies of its first request, also for the tests that come after.
    monkeypatch.setattr(urllib.request, "_opener", None)
    return home / "datasets"


def keras_set(name: str, **section: object) -> DataSpec:
    return DataSpec.model_validate({"source": {"type": "keras", "name": name}, **section})


def write_idx(folder: Path, part: str, rows: int) -> None:
    """Pictures of one grey each and their classes, as Fashion-MNIST has them."""
    labels = np.arange(rows, dtype=np.uint8) % 10
    pictures = np.repeat(labels[:, None] * 20, 28 * 28, axis=1)
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes(8) + labels.tobytes())
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes(16) + pictures.tobytes())


def test_a_set_of_the_cache_keeps_its_test_part(cache: Path, tmp_path: Path) -> None:
    write_idx(cache / "fashion-mnist", "train", 80)
    write_idx(cache / "fashion-mnist", "t10k", 30)
    raw = load_source(keras_set("fashion_mnist"), tmp_path)
    assert isinstance(raw.x, np.ndarray)
    assert raw.x.shape == (110, 28, 28)
    assert raw.class_names is not None
    assert raw.class_names[:2] == ("T-shirt/top", "Trouser")
    data = keras_set("fashion_mnist", preprocess={"reshape": [28, 28, 1]})
    signature = open_search_data(data, tmp_path).signature
    assert signature.rows == (64, 16, 30)
    assert signature.input_shape == (28, 28, 1)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist.npz"),
        ("fashion_mnist", "fashion-mnist/train-labels-idx1-ubyte.gz"),
        ("cifar10", "cifar-10-batches-py-target_archive"),
        ("cifar100", "cifar-100-python-target_archive"),
        ("california_housing", "california_housing.npz"),
    ],
)
def test_a_set_that_is_not_there(cache: Path, tmp_path: Path, name: str, file: str) -> None:
    with pytest.raises(DataError) as error:
        load_source(keras_set(name), tmp_path)
    words = str(error.value)
    assert f"not in Keras's cache, which lacks {cache / file};" in words
    assert "fetching it failed: URL fetch failure" in words
    assert f"keras.datasets.{name}.load_data()" in words
    assert "KERAS_HOME" in words


def test_a_set_that_is_damaged(cache: Path, tmp_path: Path) -> None:
    np.savez(cache / "mnist.npz", x_train=np.zeros((2, 28, 28)))
    with pytest.raises(DataError, match=r"mnist is damaged in Keras's cache.*mnist\.npz"):
        load_source(keras_set("mnist"), tmp_path)


def test_there_are_no_columns(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a source of type keras has no columns"):
        load_source(keras_set("mnist", split={"group": "writer"}), tmp_path)
