"""What a user's function returns: arrays, a DataFrame, a data set of batches, or ready parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpo.data.checks import check_batch, check_used
from hpo.data.features import Array, Features, count_rows
from hpo.data.joined import JoinedBatches, join_arrays, join_rows
from hpo.data.raw import RawData, SourceFiles
from hpo.errors import DataError
from hpo.spec.models import Preprocess, PythonSource
from hpo.usercode import describe, hint, import_user_module

_PARTS = ("train", "validation", "test")
_EXPECTED = (
    "(x, y) arrays, a DataFrame, a tf.data.Dataset or keras.utils.PyDataset of batches (x, y), "
    "or a mapping with train, validation and test of these"
)


def load_python(
    source: PythonSource, files: SourceFiles, preprocess: Preprocess, project: Path
) -> RawData:
    """Calls the function and reads what it returns.

    Raises DataError when it is not there, raises, or returns something else.
    """
    returned = _call(source, project)
    if not (isinstance(returned, Mapping) and set(returned) & set(_PARTS)):
        return _read(returned, source, files.columns, preprocess)
    lacking = sorted(set(_PARTS) - set(returned))
    if lacking:
        raise DataError(f"{source.load} returns parts without {', '.join(lacking)}")
    return _join([returned[part] for part in _PARTS], source, files.columns, preprocess)


def _call(source: PythonSource, project: Path) -> Any:
    module_name, _, name = source.load.partition(":")
    module = import_user_module(module_name, project, DataError)
    function = getattr(module, name, None)
    if not callable(function):
        others = [each for each in dir(module) if callable(getattr(module, each))]
        held = "" if function is None else f": it is of type {type(function).__name__}"
        raise DataError(
            f"the module {module_name} has no function {name!r}{held}{hint(name, others)}"
        )
    try:
        return function(**source.args)
    except Exception as error:
        raise DataError(f"{source.load} raised {describe(error)}") from error


def _read(
    value: Any, source: PythonSource, columns: tuple[str, ...], preprocess: Preprocess
) -> RawData:
    if _is_frame(value):
        from hpo.data.columns import plain_frame
        from hpo.data.sources.table import from_frame

        return from_frame(plain_frame(value), _with_target(source), columns, preprocess, None)
    if isinstance(value, Mapping) and {"x", "y"} <= set(value):
        extra = {name: _column(value, name, source) for name in columns}
        check_used(map(str, value), columns)
        return RawData(*_pair(value, source), columns=extra)
    if columns:
        raise DataError(
            f"`split` asks for the column {columns[0]!r}; then {source.load} must return a "
            "DataFrame, or a mapping with x, y and that column"
        )
    x, y = _pair(value, source)
    return RawData(x, y)


def _join(
    values: list[Any], source: PythonSource, columns: tuple[str, ...], preprocess: Preprocess
) -> RawData:
    if all(map(_is_frame, values)):
        import pandas as pd

        from hpo.data.columns import plain_frame
        from hpo.data.sources.table import from_frame

        # Joined by names, each of which must stand once; some objects are numbers only when joined.
        frames = [plain_frame(value) for value in values]
        frame = plain_frame(pd.concat(frames, ignore_index=True))
        parts = np.repeat(_PARTS, [len(each) for each in values])
        return from_frame(frame, _with_target(source), columns, preprocess, parts)
    if columns:
        raise DataError("parts that are ready need no `split.column`, `group` or `time`")
    for value in values:
        if isinstance(value, Mapping):
            check_used(map(str, value), columns)
    pairs = [_pair(value, source) for value in values]
    return RawData(
        x=join_rows([x for x, _ in pairs]),
        y=join_arrays([y for _, y in pairs], "y"),
        parts=np.repeat(_PARTS, [count_rows(x) for x, _ in pairs]),
    )


def _pair(value: Any, source: PythonSource) -> tuple[Features, Any]:
    if isinstance(value, tuple | list) and len(value) == 2:
        return _features(value[0], source), _array(value[1], "y", source)
    if isinstance(value, Mapping) and {"x", "y"} <= set(value):
        return _features(value["x"], source), _array(value["y"], "y", source)
    if hasattr(value, "__iter__") or hasattr(value, "__getitem__"):
        return _from_batches(_batches(value), source)
    raise DataError(f"{source.load} returns {type(value).__name__}; expected {_EXPECTED}")


def _batches(value: Any) -> Iterable[Any]:
    # A PyDataset has a length and items, and iterating over it would never end.
    if hasattr(value, "__getitem__") and hasattr(value, "on_epoch_end"):
        return (value[index] for index in range(len(value)))
    if getattr(value, "cardinality", None) is not None and int(value.cardinality()) == -1:
        raise DataError("the data set repeats without end; leave out .repeat()")
    batches: Iterable[Any] = iter(value)
    return batches


def _from_batches(batches: Iterable[Any], source: PythonSource) -> tuple[Features, Any]:
    joined = JoinedBatches()
    for batch in batches:
        check_batch(batch, source.load)
        joined.add(_features(batch[0], source), _array(batch[1], "y", source))
    if not joined:
        raise DataError(f"{source.load} yields no batch; expected {_EXPECTED}")
    return joined.join()


def _features(value: Any, source: PythonSource) -> Features:
    if isinstance(value, Mapping):
        return {str(name): _array(array, str(name), source) for name, array in value.items()}
    return _array(value, "x", source)


def _array(value: Any, name: str, source: PythonSource) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"{name}, which {source.load} returns, can't be made an array: {error}. Rows must have "
            "one length; pad shorter ones with NaN and set `preprocess.mask`."
        ) from None


def _column(value: Mapping[str, Any], name: str, source: PythonSource) -> Any:
    if name not in value:
        raise DataError(
            f"`split` asks for the column {name!r}, which {source.load} does not return; it "
            f"returns: {', '.join(map(str, value))}"
        )
    return _array(value[name], name, source)


def _with_target(source: PythonSource) -> PythonSource:
    if source.target is None:
        raise DataError(
            f"{source.load} returns a DataFrame; name the column to learn in `data.source.target`"
        )
    return source


def _is_frame(value: Any) -> bool:
    import pandas as pd

    return isinstance(value, pd.DataFrame)
