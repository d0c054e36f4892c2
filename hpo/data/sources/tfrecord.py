"""TFRecord files of `tf.train.Example`. Needs TensorFlow."""

from __future__ import annotations

import gzip
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hpo.data.features import Array, Features, count_rows
from hpo.data.joined import JoinedRows, join_arrays, join_rows
from hpo.data.raw import RawData, SourceFiles
from hpo.errors import DataError
from hpo.spec.models import TfRecordSource

_BATCH = 1024
# Length and two checksums.
_FRAME = 16

_Batch = dict[str, Array]

# Where in TensorFlow an error comes from.
_TENSORFLOWS = re.compile(r"\{\{function_node .*?\}\}|\[Op:.*?\](?: name: ?\w*)?")

# The second where TensorFlow quotes bytes that are no text.
_NO_EXAMPLE = (tf.errors.InvalidArgumentError, UnicodeDecodeError)


def load_tfrecord(source: TfRecordSource, files: SourceFiles, project: Path) -> RawData:
    """The records of files, in the order of the files' names; more files for parts of the split.

    Raises DataError when no file matches, or a record can't be read or is not as described.
    """
    wanted = _wanted(source, files.columns)
    found = [_read_all(source, wanted, path, project) for _, path in files.files]
    xs = [_features(batch, source) for batch in found]
    return RawData(
        x=join_rows(xs),
        y=join_arrays([batch[source.y] for batch in found], source.y),
        columns={
            name: join_arrays([batch[name] for batch in found], name) for name in files.columns
        },
        parts=files.parts([count_rows(x) for x in xs]),
    )


def _wanted(source: TfRecordSource, columns: tuple[str, ...]) -> dict[str, Any]:
    """How to parse what is asked for."""
    xs = (source.x,) if isinstance(source.x, str) else source.x
    for name in (*xs, source.y, *columns):
        if name not in source.features:
            raise DataError(
                f"`data.source.features` does not describe {name!r}; it describes: "
                f"{', '.join(source.features)}"
            )
    return {
        name: tf.io.FixedLenFeature(source.features[name].shape, source.features[name].dtype)
        for name in dict.fromkeys((*xs, source.y, *columns))
    }


def _features(batch: _Batch, source: TfRecordSource) -> Features:
    if not isinstance(source.x, str):
        return {name: _as_columns(batch[name]) for name in source.x}
    return _as_columns(batch[source.x])


def _as_columns(array: Array) -> Array:
    """A feature of single values as one column."""
    return array[:, None] if array.ndim == 1 else array


def _read_all(source: TfRecordSource, wanted: dict[str, Any], path: str, project: Path) -> _Batch:
    files = sorted(project.glob(path)) if not Path(path).is_absolute() else _absolute(path)
    if not files:
        raise DataError(
            f"no file matches {project.absolute() / path}. Paths in `data` are relative to the "
            "project folder; correct it, or name the folder with --project."
        )
    rows = {name: JoinedRows() for name in wanted}
    empty = True
    for batch in itertools.chain.from_iterable(_read(file, source, wanted) for file in files):
        empty = False
        for name, array in batch.items():
            rows[name].add(array)
    if empty:
        raise DataError(f"{files[0]} holds no record")
    return {name: each.join() for name, each in rows.items()}


def _absolute(path: str) -> list[Path]:
    root = Path(path).anchor
    return sorted(Path(root).glob(path[len(root) :]))


def _read(file: Path, source: TfRecordSource, wanted: dict[str, Any]) -> Iterator[_Batch]:
    compression = source.compression.replace("none", "").upper()
    records = tf.data.TFRecordDataset(str(file), compression).batch(_BATCH)
    first = size = 0
    try:
        for batch in records:
            yield _parsed(batch, wanted, file, first)
            first += len(batch)
            size += int(tf.reduce_sum(tf.strings.length(batch))) + _FRAME * len(batch)
        # TensorFlow takes a file that ends within the frame of a record for one that ends there.
        if size != _size(file, source.compression):
            raise EOFError("it ends within a record")
    except (tf.errors.DataLossError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{file} is damaged, cut off, or no TFRecord file, after {first} records or more: "
            f"{_reason(error)}. Is `compression: {source.compression}` right?"
        ) from None
    except (tf.errors.OpError, OSError) as error:
        raise DataError(f"{file} can't be read: {_reason(error)}") from None


def _size(file: Path, compression: str) -> int:
    """The number of bytes of a file, unpacked."""
    if compression == "none":
        return file.stat().st_size
    with gzip.open(file) as stream:
        return stream.seek(0, io.SEEK_END)


def _parsed(batch: Any, wanted: dict[str, Any], file: Path, first: int) -> _Batch:
    try:
        parsed = tf.io.parse_example(batch, wanted)
    except _NO_EXAMPLE:
        _name_the_wrong_one(batch, wanted, file, first)
        raise
    return {name: _plain(tensor.numpy()) for name, tensor in parsed.items()}


def _name_the_wrong_one(batch: Any, wanted: dict[str, Any], file: Path, first: int) -> None:
    """Raises DataError for the first record that is not as described."""
    for index, record in enumerate(batch):
        for name, feature in wanted.items():
            try:
                tf.io.parse_single_example(record, {name: feature})
            except _NO_EXAMPLE:
                raise DataError(
                    f"{file}, record {first + index}, counted from 0: expected {name!r} as "
                    f"{feature.dtype} of shape {list(feature.shape)}, found {_held(record, name)}"
                ) from None


def _held(record: Any, name: str) -> str:
    """What a record holds under a name, in words."""
    try:
        features = tf.train.Example.FromString(record.numpy()).features.feature
    except Exception:  # noqa: BLE001 - protobuf's errors have no class that can be imported
        return "no tf.train.Example at all"
    if name not in features:
        return f"only {', '.join(sorted(features)) or 'nothing'}"
    kind = features[name].WhichOneof("kind")
    if kind is None:
        return "no values"
    words = {"float_list": "float32", "int64_list": "int64", "bytes_list": "string"}
    return f"{len(getattr(features[name], kind).value)} values of {words[kind]}"


def _plain(array: Array) -> Array:
    """Bytes as text."""
    return np.char.decode(array.astype(np.bytes_), "utf-8") if array.dtype.kind == "O" else array


def _reason(error: Exception) -> str:
    text = str(getattr(error, "message", error)).strip().splitlines()[0]
    return _TENSORFLOWS.sub("", text).strip()
