"""The data of `hpo.tune`: what a study file could say, and what must be written to a file first.

Arrays and tables that exist in memory become a file in the folder of the study's artifacts, named
after their content. So the study can be resumed, by worker processes too, and other data under the
same name is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hpo.api.builders import find_reference
from hpo.artifacts import write_whole
from hpo.data.checks import NO_ROW_WEIGHTS, check_batch, check_used
from hpo.data.joined import JoinedBatches
from hpo.data.signature import fingerprint_of
from hpo.errors import DataError
from hpo.usercode import describe

_PARTS = ("train", "validation", "test")
_EXPECTED = (
    "(x, y) arrays, a mapping with x and y, a DataFrame with target=..., a tf.data.Dataset or "
    "keras.utils.PyDataset of batches (x, y), a mapping with train, validation and test of these, "
    "a function that returns one of these, text such as 'my_data:load', or the section `data:` of "
    "a study file"
)
_ONE_LENGTH = (
    "rows must have one length, so pad shorter ones with NaN and set preprocess={'mask': True}"
)
Target = str | int | list[str | int] | None
Arrays = dict[str, Any]


@dataclass(frozen=True)
class DataInput:
    """The section `data:` of the study, and the files that it names and that must be written.

    Attributes:
        files: What writes each file, by its path.
    """

    section: dict[str, Any]
    files: Mapping[Path, Callable[[BinaryIO], object]]

    def write(self) -> list[Path]:
        """Writes the files that are not there yet; those that were written.

        Raises:
            ArtifactsError: One can't be written.
        """
        new = [path for path in self.files if not path.exists()]
        for path in new:
            write_whole(path, self.files[path])
        return new


@dataclass(frozen=True)
class _Table:
    frame: Any
    target: str | list[str]

    suffix = ".parquet"

    @property
    def fingerprint(self) -> str:
        import pandas as pd

        rows = pd.util.hash_pandas_object(self.frame, index=False).to_numpy()
        types = [[str(name), str(kind)] for name, kind in self.frame.dtypes.items()]
        return fingerprint_of([rows], types)

    def source(self, path: str) -> dict[str, Any]:
        return {"type": "table", "path": path, "target": self.target}

    def write(self, file: BinaryIO) -> None:
        try:
            self.frame.to_parquet(file, index=False)
        except (ValueError, TypeError, NotImplementedError) as error:
            # pyarrow derives its errors from these.
            raise DataError(f"the DataFrame can't be written as Parquet: {error}") from error


@dataclass(frozen=True)
class _Arrays:
    arrays: Arrays
    x: str | list[str]
    y: str

    suffix = ".npz"

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.arrays.values(), list(self.arrays))

    def source(self, path: str) -> dict[str, Any]:
        return {"type": "npz", "path": path, "x": self.x, "y": self.y}

    def write(self, file: BinaryIO) -> None:
        np.savez(file, **self.arrays)


_Rows = _Table | _Arrays


def read_input(
    data: object, target: Target, folder: Path, project: Path, columns: Collection[str] = ()
) -> DataInput:
    """The data for what a user gave; nothing is written yet.

    Args:
        target: The column or columns to learn, where a DataFrame comes in.
        folder: For files.
        project: Paths below it are told relative to it.
        columns: What the split asks for beside x and y.

    Raises:
        DataError: It is nothing that could be data.
    """
    names = _as_texts(target)
    section = _named(data, names)
    if section is not None:
        return DataInput(section, {})
    rows = _parts(_called(data) if _is_function(data) else data, names, columns)
    paths = {part: folder / f"data-{each.fingerprint}{each.suffix}" for part, each in rows.items()}
    named = {part: _relative(path, project) for part, path in paths.items()}
    first = next(iter(rows))
    section = {"source": rows[first].source(named[first])}
    if len(rows) > 1:
        section["split"] = {part: path for part, path in named.items() if part != first}
    return DataInput(section, {paths[part]: each.write for part, each in rows.items()})


def _as_texts(target: Target) -> str | list[str] | None:
    """Names of columns as tables have them: a column 4 is called "4" there."""
    if isinstance(target, list | tuple):
        return [str(name) for name in target]
    return None if target is None else str(target)


def _named(data: object, target: str | list[str] | None) -> dict[str, Any] | None:
    """The section for data that other processes can read as it is."""
    if isinstance(data, Mapping) and "source" in data:
        if target is not None:
            raise DataError("name the target in data['source'], not in target=")
        return dict(data)
    reference = data if isinstance(data, str) else None
    if _is_function(data):
        reference = find_reference(data)
    if reference is None:
        return None
    source = {"type": "python", "load": reference}
    return {"source": source if target is None else {**source, "target": target}}


def _parts(
    data: object, target: str | list[str] | None, columns: Collection[str]
) -> dict[str, _Rows]:
    if not (isinstance(data, Mapping) and "train" in data):
        return {"train": _rows(data, target, columns)}
    unknown = sorted(set(map(str, data)) - set(_PARTS))
    if unknown:
        raise DataError(f"data has the part {unknown[0]!r}; expected train, validation and test")
    return {part: _rows(data[part], target, columns) for part in _PARTS if part in data}


def _rows(data: object, target: str | list[str] | None, columns: Collection[str]) -> _Rows:
    table = _as_table(data, target)
    if table is not None:
        return table
    if target is not None:
        raise DataError(f"target= names a column of a DataFrame, received {type(data).__name__}")
    if isinstance(data, Mapping) and {"x", "y"} <= set(data):
        others = {str(name): data[name] for name in data if name not in ("x", "y")}
        check_used(others, columns)
        return _as_arrays(data["x"], data["y"], others)
    if isinstance(data, tuple | list) and len(data) == 2:
        return _as_arrays(data[0], data[1], {})
    if isinstance(data, tuple):
        advice = f". {NO_ROW_WEIGHTS}" if len(data) == 3 else ""
        raise DataError(f"data is a tuple of {len(data)}; expected (x, y){advice}")
    if _has_batches(data):
        return _as_arrays(*_joined(_batches(data)), {})
    raise DataError(f"data is of the type {type(data).__name__}; expected {_EXPECTED}")


def _as_table(data: object, target: str | list[str] | None) -> _Table | None:
    """A table with its target; also of a DataFrame and a column beside it."""
    import pandas as pd

    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], pd.DataFrame):
        x, y = data
        name = str(getattr(y, "name", None) or "target")
        if name in x.columns:
            raise DataError(f"x has a column {name!r} as y has; rename one of them")
        return _Table(x.assign(**{name: np.asarray(y)}).rename(columns=str), name)
    if not isinstance(data, pd.DataFrame):
        return None
    if target is None:
        names = ", ".join(map(str, data.columns))
        raise DataError(
            f"name the column to learn, such as target={str(data.columns[-1])!r}; "
            f"the DataFrame has: {names}"
        )
    return _Table(data.rename(columns=str), target)


def _as_arrays(x: object, y: object, others: Mapping[str, object]) -> _Arrays:
    _check_single(x, y)
    inputs: Mapping[str, object] = x if isinstance(x, Mapping) else {"x": x}
    y_name = "y" if "y" not in inputs else "targets of the study"
    named = {**{str(name): each for name, each in inputs.items()}, y_name: y, **others}
    if len(named) < len(inputs) + 1 + len(others):
        raise DataError(f"two arrays have the same name among: {', '.join(map(str, inputs))}")
    arrays = {name: _as_array(name, each) for name, each in named.items()}
    return _Arrays(arrays, list(map(str, inputs)) if isinstance(x, Mapping) else "x", y_name)


def _check_single(x: object, y: object) -> None:
    """Raises DataError for several targets by name, and several inputs without names."""
    if isinstance(y, Mapping):
        raise DataError(
            f"y is a mapping of {', '.join(map(str, y))}; expected one array: a model with several "
            "outputs is not supported"
        )
    if not (isinstance(x, tuple | list) and all(hasattr(each, "shape") for each in x)):
        return
    rows = _numpy("y", y).shape[:1]
    if (len(x),) != rows and all(tuple(each.shape[:1]) == rows for each in x):
        raise DataError(
            f"x is a {type(x).__name__} of {len(x)} arrays; name the inputs of the model, such as "
            "x={'a': ..., 'b': ...}"
        )


def _as_array(name: str, value: object) -> Any:
    array = _numpy(name, value)
    if array.dtype.kind == "O" and all(isinstance(each, str) for each in array.flat):
        return array.astype(str)
    if array.dtype.kind == "O" or array.ndim == 0:
        raise DataError(
            f"{name} must be an array of numbers or texts, a row a sample; received "
            f"{type(value).__name__} of {array.dtype}"
        )
    return array


def _numpy(name: str, value: object) -> Any:
    # TensorFlow would make an array of arrays of it, or one of numbers where a batch is even.
    if type(value).__name__ == "RaggedTensor":
        raise DataError(f"{name} is a RaggedTensor, make it x.to_tensor(np.nan): {_ONE_LENGTH}")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} is no array: {error}; {_ONE_LENGTH}") from error


def _has_batches(data: object) -> bool:
    """Whether it is a tf.data.Dataset, a PyDataset, or anything else that gives batches."""
    if isinstance(data, str | bytes | Mapping | np.ndarray):
        return False
    return hasattr(data, "__iter__") or hasattr(data, "__getitem__")


def _batches(data: Any) -> Iterable[Any]:
    # A PyDataset has a length and items, and iterating over it would never end.
    if hasattr(data, "__getitem__") and hasattr(data, "on_epoch_end"):
        return (data[index] for index in range(len(data)))
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise DataError("the data set repeats without end; leave out .repeat()")
    batches: Iterable[Any] = iter(data)
    return batches


def _joined(batches: Iterable[Any]) -> tuple[Any, Any]:
    joined = JoinedBatches()
    for batch in batches:
        check_batch(batch, "data")
        x, y = batch
        _check_single(x, y)
        named = isinstance(x, Mapping)
        joined.add(
            {k: _numpy(str(k), v) for k, v in x.items()} if named else _numpy("x", x),
            _numpy("y", y),
        )
    if not joined:
        raise DataError("data yields no batch; expected batches (x, y)")
    return joined.join()


def _is_function(data: object) -> bool:
    return callable(data) and not _has_batches(data)


def _called(load: Any) -> object:
    try:
        return load()
    except Exception as error:
        raise DataError(f"the function for data raised {describe(error)}") from error


def _relative(path: Path, project: Path) -> str:
    if path.is_relative_to(project):
        return path.relative_to(project).as_posix()
    return str(path)
