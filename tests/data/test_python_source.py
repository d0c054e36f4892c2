"""What a user's function may return, and what it may not."""

from __future__ import annotations

import itertools
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from hpo.data.raw import RawData
from hpo.data.sources import load_source
from hpo.errors import DataError
from hpo.spec.models import DataSpec

_NUMBER = itertools.count()
ARRAYS = "import numpy as np\nx, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2\n"
PARTS_WITH_A_NAME_TWICE = """
twice = frame.set_axis(['a', 'a', 'y'], axis=1)
def load(): return {'train': twice, 'validation': twice, 'test': twice}
"""
FRAME = """
import pandas as pd
frame = pd.DataFrame({'a': [1.5, 2.5] * 10, 'g': list('abcde') * 4, 'y': [0, 1] * 10})
"""


def load(folder: Path, code: str, source: dict[str, Any] | None = None, **section: Any) -> RawData:
    # Modules are imported once, so each test writes one of its own.
    name = f"my_data_{next(_NUMBER)}"
    (folder / f"{name}.py").write_text(dedent(code))
    content = {"type": "python", "load": f"{name}:load", **(source or {})}
    return load_source(DataSpec.model_validate({"source": content, **section}), folder)


def test_arrays(tmp_path: Path) -> None:
    raw = load(
        tmp_path, ARRAYS + "def load(rows): return x[:rows], y[:rows]", {"args": {"rows": 12}}
    )
    assert isinstance(raw.x, np.ndarray)
    assert (raw.x.shape, raw.y.shape) == ((12, 2), (12,))


def test_several_inputs(tmp_path: Path) -> None:
    raw = load(tmp_path, ARRAYS + "def load(): return {'left': x, 'right': x + 1}, y")
    assert isinstance(raw.x, dict)
    assert set(raw.x) == {"left", "right"}


def test_a_frame(tmp_path: Path) -> None:
    raw = load(tmp_path, FRAME + "def load(): return frame", {"target": "y"}, split={"group": "g"})
    assert isinstance(raw.x, dict)
    assert set(raw.x) == {"a"}
    assert raw.columns["g"].tolist() == list("abcde") * 4
    with pytest.raises(DataError, match=r"returns a DataFrame; name the column to learn"):
        load(tmp_path, FRAME + "def load(): return frame")


def test_a_mapping_with_columns_for_the_split(tmp_path: Path) -> None:
    code = ARRAYS + "def load(): return {'x': x, 'y': y, 'day': np.arange(20)}"
    raw = load(tmp_path, code, split={"time": "day"})
    assert raw.columns["day"].tolist() == list(range(20))
    with pytest.raises(DataError, match=r"the column 'week', which .* does not return.* day"):
        load(tmp_path, code, split={"time": "week"})
    with pytest.raises(DataError, match=r"nothing uses the array 'day'.*`split` names: none"):
        load(tmp_path, code)
    part = "{'x': x, 'y': y, 'w': y}"
    parts = f"{{'train': {part}, 'validation': {part}, 'test': {part}}}"
    with pytest.raises(DataError, match=r"nothing uses the array 'w'.*Weights of rows"):
        load(tmp_path, ARRAYS + f"def load(): return {parts}")


def test_ready_parts(tmp_path: Path) -> None:
    parts = (
        "{'train': (x[:12], y[:12]), 'validation': (x[12:16], y[12:16]), 'test': (x[16:], y[16:])}"
    )
    raw = load(tmp_path, ARRAYS + f"def load(): return {parts}")
    assert raw.parts is not None
    assert raw.parts.tolist() == ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    with pytest.raises(DataError, match="returns parts without test, validation"):
        load(tmp_path, ARRAYS + "def load(): return {'train': (x, y)}")


def test_ready_frames(tmp_path: Path) -> None:
    parts = "{'train': frame[:12], 'validation': frame[12:16], 'test': frame[16:]}"
    raw = load(tmp_path, FRAME + f"def load(): return {parts}", {"target": "y"})
    assert raw.parts is not None
    assert len(raw.parts) == 20


def test_batches_without_keras(tmp_path: Path) -> None:
    code = ARRAYS + "def load(): return ((x[i:i + 6], y[i:i + 6]) for i in range(0, 20, 6))"
    raw = load(tmp_path, code)
    assert isinstance(raw.x, np.ndarray)
    np.testing.assert_array_equal(raw.x, np.arange(40.0).reshape(20, 2))
    code = ARRAYS + "def load(): return ((x[i:i + 6], y[i:i + 6], 1) for i in range(0, 20, 6))"
    with pytest.raises(DataError, match=r"load yields batches of 3 parts; .* Weights of rows"):
        load(tmp_path, code)


@pytest.mark.keras
@pytest.mark.parametrize("batched", [".batch(6)", ""])
def test_a_data_set(tmp_path: Path, batched: str) -> None:
    code = f"def load(): return tf.data.Dataset.from_tensor_slices((x, y)){batched}"
    raw = load(tmp_path, "import tensorflow as tf\n" + ARRAYS + code)
    assert isinstance(raw.x, np.ndarray)
    np.testing.assert_array_equal(raw.x, np.arange(40.0).reshape(20, 2))
    with pytest.raises(DataError, match="repeats without end"):
        load(tmp_path, "import tensorflow as tf\n" + ARRAYS + code + ".repeat()")


@pytest.mark.keras
def test_a_pydataset(tmp_path: Path) -> None:
    code = """
    import keras
    class Batches(keras.utils.PyDataset):
        def __len__(self): return 4
        def __getitem__(self, index): return x[index * 5:index * 5 + 5], y[index * 5:index * 5 + 5]
    def load(): return Batches()
    """
    raw = load(tmp_path, ARRAYS + dedent(code))
    assert raw.y.tolist() == [0, 1] * 10


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def lod(): ...", r"has no function 'load'; did you mean 'lod'\?"),
        ("load = 3", "has no function 'load': it is of type int$"),
        ("load = 3\ndef loads(): ...", r"'load': it is of type int; did you mean 'loads'\?"),
        ("def load(): return 3", r"returns int; expected \(x, y\) arrays, a DataFrame"),
        ("def load(): return []", "yields no batch"),
        ("def load(): return [1, 2, 3]", r"yields int; expected"),
        ("def load(): return 1 / 0", r"raised ZeroDivisionError.*my_data_\d+\.py, line 1"),
        ("import nowhere", "importing my_data_.* failed with ModuleNotFoundError"),
        ("def load(): return [[1, 2], [3]], [0, 1]", "^x, which .* can't be made an array.*mask"),
        ("def load(): return {'a': [[1], [2, 3]]}, [0, 1]", "^a, which .* can't be made"),
        ("def load(): return [[1], [2]], [[0], [1, 2]]", "^y, which .* can't be made"),
    ],
)
def test_functions_that_do_not_work(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, code)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("(x[:, :1], y)", r"x has the shape \(20, 2\) in one source and \(20, 1\) in another"),
        ("(x, np.eye(2)[y])", r"y has the shape \(20,\) in one source and \(20, 2\) in another"),
        ("(x, 3)", r"y has the shape \(20,\) in one source and \(\) in another"),
        ("(x.astype('M8[s]'), y)", "x differs from source to source"),
        ("({'a': x}, y)", "one source has the inputs x and another one a"),
    ],
)
def test_parts_that_do_not_fit_together(tmp_path: Path, test: str, message: str) -> None:
    parts = f"{{'train': (x, y), 'validation': (x, y), 'test': {test}}}"
    with pytest.raises(DataError, match=message):
        load(tmp_path, ARRAYS + f"def load(): return {parts}")


@pytest.mark.parametrize(
    "code",
    [
        "def load(): return frame.set_axis(['a', 'a', 'y'], axis=1)",
        "def load(): return frame.set_axis([1, '1', 'y'], axis=1)",
        PARTS_WITH_A_NAME_TWICE,
    ],
)
def test_a_frame_with_a_name_twice(tmp_path: Path, code: str) -> None:
    with pytest.raises(DataError, match=r"two columns are named '[a1]'; rename one of them"):
        load(tmp_path, FRAME + code, {"target": "y"})


def test_columns_that_may_have_gaps(tmp_path: Path) -> None:
    code = """
    frame = pd.DataFrame({
        'whole': pd.array([1, None, 3, 4] * 5, 'Int64'),
        'real': pd.array([0.5, None, 3, 4] * 5, 'Float64'),
        'truth': pd.array([True, None, False, True] * 5, 'boolean'),
        'code': pd.array([1, None, 3, 4] * 5, 'Float64'),
        'hour': pd.array([*range(19), None], 'Int64'),
        'y': pd.array([0, 1] * 10, 'Int64'),
    })
    def load(): return frame
    """
    source = {"target": "y", "columns": {"code": "categorical"}}
    raw = load(tmp_path, "import pandas as pd" + dedent(code), source, split={"time": "hour"})
    assert isinstance(raw.x, dict)
    gap = {name: array[1].item() for name, array in raw.x.items()}
    assert gap.pop("code") == "[missing]"
    assert np.isnan(list(gap.values())).all()
    assert raw.x["whole"][[0, 2]].tolist() == [1, 3]
    assert raw.x["truth"][[0, 2]].tolist() == [1, 0]
    assert raw.x["code"][[0, 2]].tolist() == ["1", "3"]
    assert (raw.y.dtype, raw.y[:2].tolist()) == (np.int64, [0, 1])
    assert np.isnan(raw.columns["hour"]).nonzero()[0].tolist() == [19]


def test_no_module(tmp_path: Path) -> None:
    (tmp_path / "my_data.py").touch()
    data = DataSpec.model_validate({"source": {"type": "python", "load": "my_dada:load"}})
    with pytest.raises(DataError, match=r"no module 'my_dada'.*did you mean 'my_data'\?"):
        load_source(data, tmp_path)
