"""TFRecord files: what is read, and what is said of records that are not as described."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.data import open_search_data
from hpo.data.raw import RawData
from hpo.data.sources import load_source
from hpo.errors import DataError
from hpo.spec.models import DataSpec

pytestmark = pytest.mark.keras

Row = dict[str, Any]
FEATURES = {
    "x": {"dtype": "float32", "shape": [2, 3]},
    "age": {"dtype": "int64"},
    "name": {"dtype": "string"},
    "y": {"dtype": "int64"},
}


def rows(count: int, first: int = 0) -> list[Row]:
    return [
        {"x": np.arange(6.0) + n, "age": [n], "name": [f"n{n % 3}".encode()], "y": [n % 2]}
        for n in range(first, first + count)
    ]


def write(path: Path, records: Iterable[Row], compression: str = "") -> None:
    import tensorflow as tf

    def feature(values: Any) -> Any:
        kind = np.asarray(values).dtype.kind
        if kind == "f":
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if kind == "i":
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in records:
            features = tf.train.Features(feature={k: feature(v) for k, v in row.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())


def spec(path: str = "data-*.tfrecord", *, split: Any = None, **source: Any) -> DataSpec:
    section = {"type": "tfrecord", "path": path, "features": FEATURES, **source}
    return DataSpec.model_validate({"source": section, "split": split or {}})


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., RawData]:
    write(tmp_path / "data-0.tfrecord", rows(12))
    write(tmp_path / "data-1.tfrecord", rows(8, first=12))
    return lambda *args, **source: load_source(spec(*args, **source), tmp_path)


def test_files_in_the_order_of_their_names(load: Callable[..., RawData], tmp_path: Path) -> None:
    raw = load()
    assert isinstance(raw.x, np.ndarray)
    assert raw.x.shape == (20, 2, 3)
    assert raw.x.dtype == np.float32
    assert raw.x[:, 0, 0].tolist() == list(range(20))
    assert raw.y.tolist() == [0, 1] * 10
    assert open_search_data(spec(), tmp_path).signature.task == "binary"
    np.testing.assert_array_equal(load(str(tmp_path / "data-?.tfrecord")).x, raw.x)


def test_several_inputs_texts_and_columns(load: Callable[..., RawData]) -> None:
    raw = load(x=["x", "age"], y="name", split={"group": "age"})
    assert isinstance(raw.x, dict)
    assert {name: array.shape for name, array in raw.x.items()} == {"x": (20, 2, 3), "age": (20, 1)}
    assert raw.y[:3].tolist() == ["n0", "n1", "n2"]
    assert raw.columns["age"].tolist() == list(range(20))


def test_packed_files(load: Callable[..., RawData], tmp_path: Path) -> None:
    write(tmp_path / "packed.tfrecord", rows(5), "GZIP")
    assert len(load("packed.tfrecord", compression="gzip").y) == 5
    with pytest.raises(DataError, match=r"packed\.tfrecord is damaged.*compression: none"):
        load("packed.tfrecord")
    with pytest.raises(DataError, match=r"data-0\.tfrecord is damaged.*compression: gzip"):
        load(compression="gzip")
    whole = (tmp_path / "packed.tfrecord").read_bytes()
    for kept in (12, len(whole) // 2, len(whole) - 4):
        (tmp_path / "cut.tfrecord").write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"cut\.tfrecord is damaged"):
            load("cut.tfrecord", compression="gzip")


def test_files_of_their_own(load: Callable[..., RawData], tmp_path: Path) -> None:
    write(tmp_path / "late.tfrecord", rows(4))
    raw = load(split={"test": "late.tfrecord"})
    assert raw.parts is not None
    assert raw.parts.tolist() == [""] * 20 + ["test"] * 4


@pytest.mark.parametrize("kept", [10, 100, -3])
def test_a_file_that_is_cut_off(load: Callable[..., RawData], tmp_path: Path, kept: int) -> None:
    whole = (tmp_path / "data-0.tfrecord").read_bytes()
    (tmp_path / "cut.tfrecord").write_bytes(whole[:kept])
    words = r"cut\.tfrecord is damaged, cut off, or no TFRecord file"
    with pytest.raises(DataError, match=words) as caught:
        load("cut.tfrecord")
    assert "function_node" not in str(caught.value)
    assert "[Op:" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"x": np.arange(5.0)}, r"'x' as float32 of shape \[2, 3\], found 5 values of float32"),
        ({"x": [1, 2, 3, 4, 5, 6]}, r"'x' as float32 .* found 6 values of int64"),
        ({"y": [b"no"]}, r"'y' as int64 of shape \[\], found 1 values of string"),
    ],
)
def test_a_record_that_is_not_as_described(
    load: Callable[..., RawData], tmp_path: Path, spoiled: Row, message: str
) -> None:
    records = rows(5)
    records[3] |= spoiled
    write(tmp_path / "odd.tfrecord", records)
    with pytest.raises(DataError, match=rf"odd\.tfrecord, record 3, .*{message}"):
        load("odd.tfrecord")


def test_a_feature_that_a_record_lacks(load: Callable[..., RawData], tmp_path: Path) -> None:
    records = rows(5)
    del records[2]["y"]
    write(tmp_path / "odd.tfrecord", records)
    with pytest.raises(DataError, match=r"record 2, .* 'y' as int64 .*, found only age, name, x"):
        load("odd.tfrecord")


def test_what_is_no_example(load: Callable[..., RawData], tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "odd.tfrecord")) as writer:
        writer.write(b"\xff\xff no message")
    with pytest.raises(DataError, match=r"record 0, .* no tf\.train\.Example at all"):
        load("odd.tfrecord")


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("none-*.tfrecord", {}, r"no file matches .*none-\*\.tfrecord.*--project"),
        ("data-*.tfrecord", {"y": "label"}, "does not describe 'label'; it describes: x, age"),
        ("empty.tfrecord", {}, "holds no record"),
    ],
)
def test_what_is_not_there(
    load: Callable[..., RawData], tmp_path: Path, path: str, source: Any, message: str
) -> None:
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(DataError, match=message):
        load(path, **source)
