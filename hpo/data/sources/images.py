"""Pictures: a folder for each class, or a table of files and labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL

from hpo.data.cache import cached_array
from hpo.data.features import Array
from hpo.data.pictures import SUFFIXES, check_one_size, find_pictures, is_picture, read_pictures
from hpo.data.raw import RawData, SourceFiles
from hpo.data.sources.table import check_targets, column_values, target_array
from hpo.data.tablefile import check_column, read_codes
from hpo.errors import DataError
from hpo.spec.models import DataSpec, ImageLabels, ImagesSource

# Raised when pictures are decoded in another way: then none may come out of an old cache.
_DECODING = 1


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Decoded files of one folder.

    Attributes:
        x: uint8 (pictures, height, width, channels).
        kept: The place of each in the list of files; some may have been left out.
        first: The file of the first one.
    """

    x: Array
    kept: Array
    first: Path
    warnings: tuple[str, ...] = ()


def load_images(source: ImagesSource, files: SourceFiles, data: DataSpec, project: Path) -> RawData:
    """Pictures as uint8 (rows, height, width, channels), and their labels.

    Raises DataError when a folder, a table or a picture can't be read.
    """
    folders = [project / path for _, path in files.files]
    for folder in folders:
        _check_folder(folder)
    if source.labels is not None:
        return _from_table(source, source.labels, files, data, project)
    if files.columns:
        raise DataError(
            f"`split` asks for the column {files.columns[0]!r}, but class folders have no columns; "
            "name a table of files and labels in `data.source.labels`"
        )
    return _from_folders(source, files, folders)


def files_in_table(column: pd.Series[Any], folder: Path, table: Path) -> list[str]:
    """The files that a column of a table names, relative to `folder`.

    Raises DataError when one is not there.
    """
    names = column.astype(str).fillna("").tolist()
    lacking = [row for row, name in enumerate(names) if not (folder / name).is_file()]
    if lacking:
        row = lacking[0]
        named = folder / names[row] if names[row] else "no file"
        raise DataError(
            f"{table}: {len(lacking)} of {len(names)} pictures are not there; the first is {named} "
            f"in row {row}, counted from 0. Files in {column.name!r} are relative to {folder}."
        )
    return names


def _from_folders(source: ImagesSource, files: SourceFiles, folders: list[Path]) -> RawData:
    found, labels, warnings = [], [], []
    for folder in folders:
        by_class = _by_class(folder)
        warnings += [_no_picture(folder / name) for name, each in by_class.items() if not each]
        warnings += _loose(folder)
        read = _read(source, folder, [name for each in by_class.values() for name in each])
        warnings += read.warnings
        found.append(read)
        check_one_size((found[0].first, found[0].x[0]), (read.first, read.x[0]))
        classes = np.repeat(list(by_class), [len(each) for each in by_class.values()])
        labels.append(classes[read.kept])
    return RawData(
        x=found[0].x if len(found) == 1 else np.concatenate([each.x for each in found]),
        y=_of_several_classes(np.concatenate(labels), folders[0]),
        form=_form(source, found[0].x),
        parts=files.parts([len(each.x) for each in found]),
        warnings=tuple(warnings),
    )


def _of_several_classes(y: Array, folder: Path) -> Array:
    if len(set(y)) == 1:
        raise DataError(
            f"{folder} has pictures of one class only, {str(y[0])!r}; expected at least two "
            "folders with pictures"
        )
    return y


def _from_table(
    source: ImagesSource, labels: ImageLabels, files: SourceFiles, data: DataSpec, project: Path
) -> RawData:
    folder = project / files.files[0][1]
    if len(files.files) > 1:
        part, path = files.files[1]
        raise DataError(
            f"`split.{part}` names the folder {path!r}, but `data.source.labels` says which "
            "pictures there are; split by a column of that table, or give a fraction"
        )
    table = project / labels.path
    frame = read_codes(table, data, labels.label, texts=[labels.image])
    targets = [labels.label] if isinstance(labels.label, str) else list(labels.label)
    for name in (labels.image, *targets, *files.columns):
        check_column(frame, name, table)
    check_targets(frame, targets, [labels.image])
    read = _read(source, folder, files_in_table(frame[labels.image], folder, table))
    return RawData(
        x=read.x,
        y=target_array(frame, targets)[read.kept],
        class_names=tuple(targets) if len(targets) > 1 else None,
        form={**_form(source, read.x), "image": labels.image},
        columns={name: column_values(frame[name])[read.kept] for name in files.columns},
        warnings=read.warnings,
    )


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise DataError(
            f"data folder not found: {folder.absolute()}. Paths in `data` are relative to the "
            "project folder; correct it, or name the folder with --project."
        )
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; expected a folder of pictures")


def _by_class(folder: Path) -> dict[str, list[str]]:
    """Files of each class folder, relative to `folder`; both in the order of their names."""
    entries = sorted(name for name in _entries(folder) if not name.startswith("."))
    by_class = {
        name: [f"{name}/{each}" for each in find_pictures(folder / name)]
        for name in entries
        if (folder / name).is_dir()
    }
    if any(by_class.values()):
        return by_class
    expected = "expected a folder for each class with its pictures in it"
    if not entries:
        raise DataError(f"{folder} is empty; {expected}")
    if by_class:
        raise DataError(f"the class folders in {folder} hold no picture ({', '.join(SUFFIXES)})")
    loose = sum(map(is_picture, entries))
    raise DataError(
        f"{folder} has no folders, but {loose} pictures; {expected}, or a table of files and "
        "labels in `data.source.labels`"
    )


def _entries(folder: Path) -> list[str]:
    try:
        return [each.name for each in folder.iterdir()]
    except OSError as error:
        raise DataError(f"{folder} can't be read: {error.strerror}") from error


def _no_picture(folder: Path) -> str:
    return f"the class folder {folder} holds no picture ({', '.join(SUFFIXES)}) and is left out"


def _loose(folder: Path) -> list[str]:
    """A word about pictures that lie beside the class folders."""
    names = sorted(filter(is_picture, _entries(folder)))
    if not names:
        return []
    words = (
        f"{len(names)} pictures lie beside the class folders and are left out, the first is "
        f"{folder / names[0]}"
    )
    return [words]


def _read(source: ImagesSource, folder: Path, names: list[str]) -> _Pictures:
    """Decodes the files, or finds them decoded in the cache."""
    x, bad = cached_array(
        f"images-{_key(source, folder, names)}",
        lambda: read_pictures(folder, names, source.size, source.color),
    )
    kept = np.setdiff1d(np.arange(len(names)), list(bad))
    read = _Pictures(x, kept, first=folder / names[kept[0]])
    if not bad:
        return read
    place, reason = min(bad.items())
    count, which = f"{len(bad)} of {len(names)} pictures", f"{folder / names[place]}: {reason}"
    if source.corrupt == "refuse":
        raise DataError(
            f"{count} can't be read, the first is {which}. Repair or remove them, or set "
            "`data.source.corrupt: skip`."
        )
    words = f"{count} can't be read and are left out, the first is {which}"
    return replace(read, warnings=(words,))


def _key(source: ImagesSource, folder: Path, names: Sequence[str]) -> str:
    """Changes with all that decoded pictures depend on; a file's content by its size and time."""
    look = [_DECODING, PIL.__version__, str(folder.resolve()), source.size, source.color]
    digest = hashlib.sha256(json.dumps(look).encode())
    for name in names:
        digest.update(f"\0{name}\0{_state(folder / name)}".encode())
    return digest.hexdigest()[:32]


def _state(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:  # a link to nowhere: it is told when it is read
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _form(source: ImagesSource, x: Array) -> dict[str, Any]:
    return {"type": "images", "size": list(x.shape[1:3]), "color": source.color}
