from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[2]
LOSSES = {"binary": "binary_crossentropy", "multiclass": "sparse_categorical_crossentropy"}


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_builder_imports_keras_and_keras_tuner_only(name: str) -> None:
    tree = ast.parse((PROJECT / "models" / f"{name}.py").read_text())
    imported = [
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    ]
    froms = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert imported == ["keras", "keras_tuner"]
    assert froms == ["__future__"]


@pytest.fixture
def hp(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(PROJECT)
    keras_tuner = pytest.importorskip("keras_tuner")
    return keras_tuner.HyperParameters()


def fit_one_epoch(model: Any, shape: tuple[int, ...], task: str, outputs: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *shape)).astype(np.float32)
    y = rng.integers(0, max(outputs, 2), size=32)
    if task == "regression":
        y = rng.normal(size=(32, outputs)).astype(np.float32)
    assert not model.compiled
    model.compile(optimizer="adam", loss=LOSSES.get(task, "mse"))
    history = model.fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert model.predict(x, verbose=0).shape == (32, outputs)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("shape", "task", "outputs", "batchnorm"),
    [
        ((4,), "binary", 1, True),
        ((8, 8, 1), "multiclass", 10, False),
        ((5,), "regression", 3, True),
    ],
)
def test_mlp(hp: Any, shape: tuple[int, ...], task: str, outputs: int, batchnorm: bool) -> None:
    from models.mlp import MLP

    hp.values.update({"depth": 3, "units_1": 20, "batchnorm": batchnorm, "dropout": 0.3})
    model = MLP(input_shape=shape, num_outputs=outputs, task=task).build(hp)
    asked = {"activation", "batchnorm", "depth", "dropout", "l2", "units_0", "units_1", "units_2"}
    assert set(hp.values) == asked
    names = [type(layer).__name__ for layer in model.layers]
    assert names.count("Dense") == 4
    assert names.count("BatchNormalization") == (3 if batchnorm else 0)
    fit_one_epoch(model, shape, task, outputs)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("shape", "task", "outputs", "depth"),
    [
        ((8, 8, 1), "multiclass", 10, 2),
        ((3, 5, 2), "binary", 1, 1),
        ((32, 40, 3), "regression", 1, 4),
    ],
)
def test_cnn(hp: Any, shape: tuple[int, ...], task: str, outputs: int, depth: int) -> None:
    from models.cnn import build, deepest

    assert deepest(shape) == depth
    hp.values.update({"depth": depth, "batchnorm": depth > 1})
    model = build(hp, shape, outputs, task)
    filters = {f"filters_{i}" for i in range(depth)}
    assert set(hp.values) == filters | {
        "activation",
        "batchnorm",
        "depth",
        "dropout",
        "kernel_size",
        "l2",
        "units",
    }
    fit_one_epoch(model, shape, task, outputs)


@pytest.mark.keras
def test_cnn_refuses_tables(hp: Any) -> None:
    from models.cnn import build

    with pytest.raises(ValueError, match=r"received \(64,\); set data.preprocess.reshape"):
        build(hp, (64,), 10, "multiclass")
