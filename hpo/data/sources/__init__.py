"""Where rows come from. A source hands them over as they are; `hpo.data.checks` judges them."""

from __future__ import annotations

from pathlib import Path

from hpo.data.raw import RawData, SourceFiles
from hpo.data.sources.arrays import load_npy, load_npz, load_sklearn
from hpo.data.sources.images import load_images
from hpo.data.sources.python import load_python
from hpo.data.sources.sequences import load_sequences
from hpo.data.sources.table import load_table
from hpo.errors import DataError
from hpo.spec.models import (
    DataSpec,
    ImagesSource,
    KerasSource,
    NpySource,
    NpzSource,
    PythonSource,
    SequencesSource,
    Split,
    TableSource,
    TfRecordSource,
)

__all__ = ["load_source"]

_WITH_FILES = NpzSource | TableSource | ImagesSource | SequencesSource | TfRecordSource


def load_source(data: DataSpec, project: Path) -> RawData:
    """Reads the rows of a source; paths are relative to `project`.

    Raises DataError when something can't be read or is not there.
    """
    source, split = data.source, data.split
    files = SourceFiles(_files(source, split), _columns(split))
    if isinstance(source, NpzSource):
        return load_npz(source, files, project)
    if isinstance(source, TableSource):
        return load_table(source, files, data, project)
    if isinstance(source, ImagesSource):
        return load_images(source, files, data, project)
    if isinstance(source, PythonSource):
        return load_python(source, files, data.preprocess, project)
    if isinstance(source, SequencesSource):
        return load_sequences(source, files, data, project)
    if isinstance(source, TfRecordSource):
        # Needs TensorFlow, as the next one needs Keras: both are for a trainer.
        from hpo.data.sources.tfrecord import load_tfrecord

        return load_tfrecord(source, files, project)
    _refuse_columns(files.columns, source.type)
    if isinstance(source, KerasSource):
        from hpo.data.sources.kerasets import load_keras

        return load_keras(source.name)
    return load_npy(source, project) if isinstance(source, NpySource) else load_sklearn(source.name)


def _files(source: object, split: Split) -> tuple[tuple[str, str], ...]:
    own = [
        (part, path)
        for part, path in (("validation", split.validation), ("test", split.test))
        if isinstance(path, str)
    ]
    if own and not isinstance(source, _WITH_FILES):
        raise DataError(
            f"`split.{own[0][0]}` names a source of its own, {own[0][1]!r}; that is for tables, "
            "sequences, .npz and TFRecord files and folders of pictures. Give a fraction."
        )
    return (("", str(getattr(source, "path", ""))), *own)


def _columns(split: Split) -> tuple[str, ...]:
    return tuple(filter(None, (split.column, split.group, split.time)))


def _refuse_columns(columns: tuple[str, ...], kind: str) -> None:
    if columns:
        raise DataError(
            f"`split` asks for the column {columns[0]!r}, but a source of type {kind} has no "
            "columns besides x and y. Use npz, table, sequences, tfrecord or python."
        )
