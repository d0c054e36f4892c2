"""The contestants of benchmarks/peers are given the same work."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.peers import data
from benchmarks.peers.__main__ import CONTESTANTS, TARGETS, measure
from benchmarks.peers.job import (
    BATCH_SIZE,
    METRIC,
    MIN_RESOURCE,
    REDUCTION_FACTOR,
    Job,
    events_file,
    record,
)
from benchmarks.peers.report import Clock, figures
from benchmarks.peers.space import declare, suggest
from benchmarks.peers.with_hpo import study_file, study_text
from hpo.spec import load_study_file
from hpo.study.suggest import distribution_of

SMALL = Job("digits", trials=2, epochs=1, seed=3, workers=2, pruning=True, steps_per_execution=1)
CONFIGURATIONS: list[dict[str, Any]] = [
    {
        "depth": 1,
        "units_0": 80,
        "dropout": 0.0,
        "batchnorm": False,
        "learning_rate": 0.01,
        "optimizer": "adam",
    },
    {
        "depth": 3,
        "units_0": 16,
        "units_1": 256,
        "units_2": 100,
        "dropout": 0.25,
        "batchnorm": True,
        "learning_rate": 0.1,
        "optimizer": "sgd",
    },
]


def hyperparameters(values: dict[str, Any]) -> Any:
    """KerasTuner's, with these values chosen."""
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


@pytest.mark.keras
@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_both_ways_of_asking_ask_for_the_same(values: dict[str, Any]) -> None:
    from hpo.space.hyperparameters import parameter_of

    trial, hp = optuna.trial.FixedTrial(values), hyperparameters(values)
    assert suggest(trial) == declare(hp) == values
    declared = {each.name: distribution_of(parameter_of(each)) for each in hp.space}
    assert declared == trial.distributions


@pytest.mark.keras
@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_both_ways_of_building_make_the_same_model(values: dict[str, Any]) -> None:
    import keras

    from benchmarks.peers.model import build, make_model

    shape, classes = (64,), 10
    keras.backend.clear_session()
    by_hand = make_model(suggest(optuna.trial.FixedTrial(values)), shape, classes)
    # Names are numbered within a session.
    keras.backend.clear_session()
    built = build(hyperparameters(values), shape, classes)
    assert [w.shape for w in by_hand.weights] == [w.shape for w in built.weights]
    assert by_hand.count_params() == built.count_params() == expected_weights(values, 64, classes)
    assert by_hand.get_compile_config() == built.get_compile_config()


def expected_weights(values: dict[str, Any], features: int, classes: int) -> int:
    """A bias, or the four numbers a unit that batch normalization keeps instead."""
    total = 0
    for i in range(values["depth"]):
        units = values[f"units_{i}"]
        total += units * (features + (4 if values["batchnorm"] else 1))
        features = units
    return total + (features + 1) * classes


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("pruning", [True, False])
def test_the_study_file_says_what_the_peers_are_told(
    tmp_path: Path, task: str, pruning: bool
) -> None:
    job = Job(task, 7, 4, seed=5, workers=2, pruning=pruning, steps_per_execution=1)
    study = tmp_path / "study.yaml"
    study.write_text(study_text(job))
    spec = load_study_file(study).spec
    assert (spec.search.trials, spec.training.epochs, spec.training.seed) == (7, 4, 5)
    assert (spec.training.batch_size, spec.objective.metric) == (BATCH_SIZE, METRIC)
    assert spec.training.early_stopping is None
    # The builder alone says what is searched.
    assert spec.space == {}
    assert spec.search.sampler.type == "tpe"
    if pruning:
        assert spec.search.pruner.type == "successive_halving"
        options = {"min_resource": MIN_RESOURCE, "reduction_factor": REDUCTION_FACTOR}
        assert spec.search.pruner.options == options
    else:
        assert spec.search.pruner.type == "none"


def test_the_costly_study_is_one_that_can_run() -> None:
    assert load_study_file(study_file("cnn")).spec.search.pruner.type == "none"


def test_digits_are_split_once_and_scaled() -> None:
    parts = data.digits()
    assert {part: rows.x.shape for part, rows in parts.items()} == {
        "train": (1077, 64),
        "validation": (360, 64),
        "test": (360, 64),
    }
    assert (parts["train"].x.min(), parts["train"].x.max()) == (0.0, 1.0)
    assert data.digit_pictures()["test"].x.shape == (360, 32, 32, 1)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_is_read_from_idx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    rows = {"train": 15_001, "t10k": 3}
    for part, count in rows.items():
        pictures = np.arange(count * 4, dtype=np.uint64).astype(np.uint8).reshape(count, 2, 2)
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", pictures, packed)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", pictures[:, 0, 0] % 10, packed)
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    # Past the cache, which holds the real ones where they are.
    parts = data.fashion.__wrapped__()
    assert [len(parts[part].y) for part in ("train", "validation", "test")] == [10_000, 5_000, 3]
    np.testing.assert_allclose(parts["train"].x[1], np.array([4, 5, 6, 7]) / 255, rtol=1e-6)
    assert parts["train"].y[1] == 4
    assert parts["validation"].y[0] == 40_000 % 256 % 10


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]], packed: bool) -> None:
    content = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, 1))
    else:
        path.write_bytes(content)


def test_absent_fashion_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Debian's package dataset-fashion-mnist"):
        data.fashion.__wrapped__()


def test_figures_run_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    for name, value in events_file(events).items():
        monkeypatch.setenv(name, value)
    # As they may come out of two processes: not in order.
    record("begin", 1, at=1012.0)
    record("begin", 0, at=1010.0)
    record("epoch", 0, at=1014.0, epoch=1, value=0.8)
    record("epoch", 1, at=1013.0, epoch=1, value=0.7)
    record("epoch", 0, at=1018.0, epoch=2, value=0.95)
    record("end", 1, at=1013.5)
    record("end", 0, at=1020.0)
    found = figures(events, Clock(started=1000.0, ended=1023.0), target=0.75)
    assert found == {
        "trials": 2,
        "epochs_trained": 3,
        "wall_seconds": 20.0,
        "startup_seconds": 10.0,
        "seconds_per_trial": 5.0,
        "seconds_per_epoch": 3.3333,
        "trials_per_minute": 6.0,
        "exit_seconds": 3.0,
        "best": 0.95,
        "target": 0.75,
        "target_seconds": 14.0,
        "target_epochs": 2,
    }
    assert figures(events, Clock(1000.0, 1023.0), target=0.99)["target_seconds"] is None


@pytest.mark.keras
@pytest.mark.parametrize(
    "contestant",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "hpo" else pytest.mark.long)
        for name in CONTESTANTS
    ],
)
def test_a_contestant_runs_the_search(contestant: str) -> None:
    missing = [name for name in CONTESTANTS[contestant] if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -e '.[benchmarks]'")
    row = measure(contestant, SMALL, target=0.0)
    assert (row["trials"], row["epochs_trained"]) == (2, 2)
    assert 0 < row["startup_seconds"] < row["target_seconds"] <= row["wall_seconds"]
    assert 0 < row["best"] <= 1


@pytest.mark.keras
@pytest.mark.slow
def test_a_run_ends_at_its_target() -> None:
    endless = replace(SMALL, trials=1000)
    row = measure("hpo", endless, target=0.0, to_target=True)
    assert 1 <= row["trials"] < 1000
    assert row["target_epochs"] == 1
    assert row["cpu_seconds"] is None
