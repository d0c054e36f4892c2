"""Graphs that trials share: the same numbers to the last bit, and only where that is certain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpo.training.channel import TrialTask
from tests.training.test_trial import LastState, check_same_state
from tests.training.trials import MemoryChannel

if TYPE_CHECKING:
    import keras

    from hpo.training.trial import Bench

pytestmark = pytest.mark.keras

MakeBench = Callable[..., "Bench"]

REGULAR = """
import keras


def regular(hp, input_shape, num_outputs):
    x = inputs = keras.Input(input_shape)
    l1, l2 = hp.Float("l1", 0, 1), hp.Float("l2", 0, 1)
    for factor in (keras.regularizers.L1(l1), keras.regularizers.L2(l2), None):
        x = keras.layers.Dense(16, "relu", kernel_regularizer=factor)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(hp.Float("dropout", 0, 0.9))(x)
    last = keras.regularizers.L1L2(l1, l2)
    x = keras.layers.Dense(num_outputs, "softmax", kernel_regularizer=last)(x)
    return keras.Model(inputs, x)
"""

NUMBERS: dict[str, Any] = {
    "dropout": 0.2,
    "l1": 1e-4,
    "l2": 1e-3,
    "learning_rate": 0.05,
    "momentum": 0.5,
    "weight_decay": 1e-3,
}
OTHERS: dict[str, Any] = {
    "dropout": 0.45,
    "l1": 3e-3,
    "l2": 2e-2,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.1,
}


@pytest.fixture
def bench(make_bench: MakeBench, tmp_path: Path) -> Bench:
    """With a builder that has every number that a graph may share."""
    from hpo.spec.models import ModelSpec
    from hpo.training.builder import load_builder

    (tmp_path / "regular_builder.py").write_text(REGULAR)
    made = make_bench(
        training={"epochs": 3, "batch_size": 128, "optimizer": "sgd", "deterministic": True},
        space={
            "learning_rate": {"type": "float", "low": 1e-3, "high": 1.0},
            "momentum": {"type": "float", "low": 0.0, "high": 0.99},
            "weight_decay": {"type": "float", "low": 0.0, "high": 0.2},
        },
    )
    spec = ModelSpec(builder="regular_builder:regular")
    return replace(made, builder=load_builder(spec, made.data.signature, tmp_path))


def fresh(bench: Bench) -> Bench:
    """The same without any graph yet."""
    from hpo.training.reuse import GraphCache

    return replace(bench, graphs=GraphCache())


def run(bench: Bench, folder: Path, values: dict[str, Any], seed: int = 11) -> LastState:
    from hpo.training.trial import run_trial

    channel = LastState(values=values, folder=folder)
    run_trial(bench, TrialTask(number=3, seed=seed, token=1, folder=folder, reported=0), channel)
    return channel


def graphs(bench: Bench) -> int:
    return len(bench.graphs._graphs)


def test_a_graph_used_again_gives_the_same_trial_to_the_last_bit(
    bench: Bench, tmp_path: Path
) -> None:
    alone = run(bench, tmp_path / "alone", OTHERS)
    shared = fresh(bench)
    run(shared, tmp_path / "first", NUMBERS, seed=4)
    again = run(shared, tmp_path / "again", OTHERS)
    assert graphs(shared) == 1
    assert again.reports == alone.reports
    check_same_state(again.last, alone.last)


@pytest.mark.parametrize("name", OTHERS)
def test_every_number_counts_in_a_graph_used_again(bench: Bench, tmp_path: Path, name: str) -> None:
    shared = fresh(bench)
    first = run(shared, tmp_path / "first", NUMBERS)
    other = run(shared, tmp_path / "other", NUMBERS | {name: OTHERS[name]})
    assert graphs(shared) == 1
    assert first.last is not None
    assert other.last is not None
    assert any((a != b).any() for a, b in zip(first.last.weights, other.last.weights, strict=True))


def test_a_zero_is_another_structure(bench: Bench, tmp_path: Path) -> None:
    shared = fresh(bench)
    for index, name in enumerate(["dropout", "l2", "momentum", "weight_decay"]):
        run(shared, tmp_path / name, NUMBERS | {name: 0.0})
        assert graphs(shared) == index + 1


def test_a_trial_that_is_taken_over_may_find_a_graph(bench: Bench, tmp_path: Path) -> None:
    from hpo.training.trial import run_trial
    from tests.training.trials import KilledError

    whole = run(bench, tmp_path / "whole", OTHERS)
    shared = fresh(bench)
    task = TrialTask(number=3, seed=11, token=1, folder=tmp_path / "broken", reported=0)
    with pytest.raises(KilledError):
        run_trial(bench, task, MemoryChannel(values=OTHERS, die_after=1))
    run(shared, tmp_path / "before", NUMBERS)
    channel = LastState(values=OTHERS, folder=task.folder)
    run_trial(shared, replace(task, token=2, reported=1), channel)
    assert channel.begun[0].epoch == 1
    check_same_state(channel.last, whole.last)


def own_layer() -> Any:
    import keras

    class Scale(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    return Scale()


def learned_layer() -> Any:
    import keras

    return keras.layers.Normalization(mean=0.0, variance=1.0)


def own_function() -> Any:
    import keras

    return keras.layers.Activation(lambda x: 2 * x)


@pytest.mark.parametrize("part", [own_layer, learned_layer, own_function])
def test_what_keras_can_not_write_down_is_never_shared(part: Callable[[], Any]) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), part(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert not is_shared(model)


def test_what_is_shared() -> None:
    import keras

    def dense(*layers: Any, inputs: bool = True) -> keras.Model:
        first = [keras.Input((4,))] if inputs else []
        return keras.Sequential([*first, *layers, keras.layers.Dense(1)])

    (model := dense(keras.layers.Dropout(0.5))).compile("sgd", "mse", metrics=["mae"])
    assert is_shared(model)
    (model := dense()).compile("sgd", lambda y, predicted: y - predicted)
    assert not is_shared(model)
    (model := dense()).compile("sgd", "mse", metrics=[lambda y, predicted: y - predicted])
    assert not is_shared(model)
    (model := dense()).compile(keras.optimizers.SGD(use_ema=True), "mse")
    assert not is_shared(model)
    (model := dense()).compile("sgd", "mse")
    model.train_step = lambda data: {}
    assert not is_shared(model)
    (model := dense(inputs=False)).compile("sgd", "mse")
    assert not is_shared(model)


def is_shared(model: keras.Model) -> bool:
    from hpo.spec.models import Augment
    from hpo.training.compiling import Settings
    from hpo.training.reuse import _numbers, _structure

    settings = Settings(1, 32, "sgd", 0.1, 0.0, 0.0, 0.0, Augment())
    return _structure(model, settings, list(_numbers(model))) is not None


def test_the_cache_is_bounded(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.training.reuse._GRAPHS", 2)
    shared = fresh(make_bench(training={"epochs": 1, "batch_size": 128}, space={}))
    for units in (4, 5, 4, 6):
        run(shared, tmp_path / str(units), {"units": units, "dropout": 0.5})
    assert graphs(shared) == 2
    kept = list(shared.graphs._graphs)
    assert '"units": 4' in kept[0]
    assert '"units": 6' in kept[1]
