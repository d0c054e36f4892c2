from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from hpo.data.sources import load_source
from hpo.errors import DataError
from hpo.spec.models import DataSpec


def npz(path: str = "data.npz", **names: object) -> DataSpec:
    return DataSpec.model_validate({"source": {"type": "npz", "path": path, **names}})


def sklearn(name: str) -> DataSpec:
    return DataSpec.model_validate({"source": {"type": "sklearn", "name": name}})


@pytest.mark.parametrize(
    ("name", "x_shape", "y_shape", "class_names"),
    [
        ("breast_cancer", (569, 30), (569,), ("malignant", "benign")),
        ("diabetes", (442, 10), (442,), None),
        ("digits", (1797, 64), (1797,), tuple("0123456789")),
        ("iris", (150, 4), (150,), ("setosa", "versicolor", "virginica")),
        ("linnerud", (20, 3), (20, 3), None),
        ("wine", (178, 13), (178,), ("class_0", "class_1", "class_2")),
    ],
)
def test_sklearn(
    name: str, x_shape: tuple[int, ...], y_shape: tuple[int, ...], class_names: tuple[str, ...]
) -> None:
    raw = load_source(sklearn(name), Path())
    assert raw.x.shape == x_shape
    assert raw.y.shape == y_shape
    assert raw.class_names == class_names


def test_diabetes_comes_as_measured_not_normalized_over_all_rows() -> None:
    raw = load_source(sklearn("diabetes"), Path())
    assert raw.x[0, 0] == 59  # age in years


def test_npz_keeps_dtypes_and_takes_other_names(tmp_path: Path) -> None:
    features = np.arange(6, dtype=np.uint8).reshape(3, 2)
    np.savez_compressed(tmp_path / "data.npz", features=features, label=["a", "b", "a"])
    raw = load_source(npz(x="features", y="label"), tmp_path)
    np.testing.assert_array_equal(raw.x, features)
    assert raw.x.dtype == np.uint8
    assert raw.y.tolist() == ["a", "b", "a"]
    assert raw.class_names is None


def test_npz_missing_names_the_place_and_the_rule(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not found: .*nowhere\.npz.*relative to the project") as e:
        load_source(npz("sub/nowhere.npz"), tmp_path)
    assert str(tmp_path / "sub") in str(e.value)


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_truncated(path: Path) -> None:
    np.savez(path, x=np.zeros((20, 3)), y=np.zeros(20))
    path.write_bytes(path.read_bytes()[:-40])


def write_flipped(path: Path) -> None:
    np.savez(path, x=np.zeros((20, 3)), y=np.zeros(20))
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("age,weight\n1,2\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
        lambda path: path.mkdir(),
        write_npy,
        write_truncated,
        write_flipped,
    ],
    ids=["csv", "empty", "pickle", "folder", "npy", "truncated", "flipped bits"],
)
def test_npz_damaged_or_something_else(tmp_path: Path, write) -> None:
    write(tmp_path / "data.npz")
    with pytest.raises(DataError, match=r"not a readable \.npz file.*numpy\.savez"):
        load_source(npz(), tmp_path)


def test_npz_missing_array_lists_names_and_suggests(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", features=np.zeros((3, 2)), target=np.zeros(3))
    with pytest.raises(DataError, match="named 'feature'; it has: features, target") as e:
        load_source(npz(x="feature", y="target"), tmp_path)
    assert "Did you mean 'features'?" in str(e.value)


def test_npz_refuses_pickled_objects(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 2)), y=objects)
    with pytest.raises(DataError, match=r"'y' .*\(dtype object\).*astype"):
        load_source(npz(), tmp_path)
