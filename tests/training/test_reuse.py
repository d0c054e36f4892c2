"""Graphs that trials share: the same numbers to the last bit, and only where that is certain."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpo.training.channel import TrialTask
from tests.training.test_trial import LastState, check_same_state
from tests.training.trials import MemoryChannel, with_builder

if TYPE_CHECKING:
    import keras

    from hpo.training.bench import Bench

pytestmark = pytest.mark.keras

MakeBench = Callable[..., "Bench"]

REGULAR = """
import keras


def regular(hp, input_shape, num_outputs):
    x = inputs = keras.Input(input_shape)
    l1, l2 = hp.Float("l1", 0, 1), hp.Float("l2", 0, 1)
    for i, factor in enumerate([keras.regularizers.L1(l1), keras.regularizers.L2(l2), None]):
        units = hp.Int(f"units_{i}", 4, 64, default=16)
        x = keras.layers.Dense(units, "relu", kernel_regularizer=factor)(x)
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
    "units_0": 16,
    "units_1": 24,
    "units_2": 8,
}
OTHERS: dict[str, Any] = {
    "dropout": 0.45,
    "l1": 3e-3,
    "l2": 2e-2,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.1,
    "units_0": 30,
    "units_1": 9,
    "units_2": 12,
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
    shared = replace(bench)
    run(shared, tmp_path / "first", NUMBERS, seed=4)
    again = run(shared, tmp_path / "again", OTHERS)
    assert graphs(shared) == 1
    assert again.reports == alone.reports
    check_same_state(again.last, alone.last)


@pytest.mark.parametrize("name", OTHERS)
def test_every_number_counts_in_a_graph_used_again(bench: Bench, tmp_path: Path, name: str) -> None:
    shared = replace(bench)
    first = run(shared, tmp_path / "first", NUMBERS)
    other = run(shared, tmp_path / "other", NUMBERS | {name: OTHERS[name]})
    assert graphs(shared) == 1
    assert first.last is not None
    assert other.last is not None
    pairs = zip(first.last.weights, other.last.weights, strict=True)
    assert any(a.shape != b.shape or (a != b).any() for a, b in pairs)
    assert first.begun[0].parameters > 0
    same = first.begun[0].parameters == other.begun[0].parameters
    assert same == (not name.startswith("units"))


def test_a_zero_is_another_structure(bench: Bench, tmp_path: Path) -> None:
    shared = replace(bench)
    for index, name in enumerate(["dropout", "l2", "momentum", "weight_decay"]):
        run(shared, tmp_path / name, NUMBERS | {name: 0.0})
        assert graphs(shared) == index + 1


UNWRITTEN = """
import keras

layers = keras.layers


def unwritten(hp, input_shape, num_outputs):
    changed = hp.Boolean("changed")
    strong, weak = keras.regularizers.L2(0.5), keras.regularizers.L2(1e-4)
    x = inputs = keras.Input(input_shape)
    first = layers.Dense(8, "relu", kernel_regularizer=strong)
    middle = strong if CASE == "regularizer" and changed else weak
    x = layers.Dense(8, "relu", kernel_regularizer=middle)(first(x))
    x = layers.Dense(8, "relu", kernel_regularizer=weak)(x)
    attention = layers.MultiHeadAttention(1, 4)
    x = layers.Reshape((4, 2))(x)
    x = layers.Flatten()(attention(x, x))
    model = keras.Model(inputs, layers.Dense(num_outputs, "softmax")(x))
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if CASE == "decay" and changed:
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    if CASE == "variable" and changed:
        first.kernel.trainable = False
    if CASE == "inner layer" and changed:
        attention._query_dense.trainable = False
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""


@pytest.mark.parametrize("case", ["regularizer", "decay", "variable", "inner layer"])
def test_what_keras_does_not_write_is_another_structure(
    make_bench: MakeBench, tmp_path: Path, case: str
) -> None:
    """Layers that share a regularizer, variables without decay, frozen parts of a layer."""
    from hpo.spec.models import ModelSpec
    from hpo.training.builder import load_builder

    module = f"unwritten_{case.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text(UNWRITTEN.replace("CASE", repr(case)))
    made = make_bench(
        training={"epochs": 1, "batch_size": 128, "deterministic": True},
        space={"changed": {"type": "bool"}},
    )
    spec = ModelSpec(builder=f"{module}:unwritten")
    bench = replace(made, builder=load_builder(spec, made.data.signature, tmp_path))
    alone = run(bench, tmp_path / "alone", {"changed": True})
    shared = replace(bench)
    run(shared, tmp_path / "first", {"changed": False})
    second = run(shared, tmp_path / "second", {"changed": True})
    assert graphs(shared) == 2
    check_same_state(second.last, alone.last)
    run(shared, tmp_path / "third", {"changed": True})
    assert graphs(shared) == 2


def test_graphs_read_the_same_tensors_of_the_data(bench: Bench, tmp_path: Path) -> None:
    """On a GPU a copy of the data for each graph would take its memory."""
    import tensorflow as tf

    shared = replace(bench)
    shape = shared.data.train.x.shape

    def tensors() -> list[Any]:
        live = [each for each in gc.get_objects() if tf.is_tensor(each) and each.shape == shape]
        return [each for each in live if hasattr(each, "numpy")]

    # Of tests before, which the collector has not come by yet.
    others = tensors()
    run(shared, tmp_path / "one", NUMBERS)
    run(shared, tmp_path / "other", NUMBERS | {"dropout": 0.0})
    assert graphs(shared) == 2
    held = [shared.tensors.of("train", list), *others]
    assert [each for each in tensors() if all(each is not known for known in held)] == []


def test_a_trial_that_is_taken_over_may_find_a_graph(bench: Bench, tmp_path: Path) -> None:
    from hpo.training.trial import run_trial
    from tests.training.trials import KilledError

    whole = run(bench, tmp_path / "whole", OTHERS)
    shared = replace(bench)
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
    (model := dense()).compile("sgd", lambda y, predicted: (y - predicted) ** 2)
    assert not is_shared(model)
    (model := dense()).compile("sgd", "mse", metrics=[lambda y, predicted: predicted])
    assert not is_shared(model)
    (model := dense()).compile(keras.optimizers.SGD(use_ema=True), "mse")
    assert not is_shared(model)
    (model := dense()).compile("sgd", "mse")
    model.train_step = lambda data: {"loss": 0.0}
    assert not is_shared(model)
    (model := dense(inputs=False)).compile("sgd", "mse")
    assert not is_shared(model)


def test_what_can_not_be_written_down_at_all_trains_alone() -> None:
    import keras

    class Loss:
        def __call__(self, y: Any, predicted: Any) -> Any:
            return keras.ops.mean((y - predicted) ** 2)

    dropout = keras.layers.Dropout(0.3)
    model = keras.Sequential([keras.Input((4,)), dropout, keras.layers.Dense(1)])
    model.compile("sgd", Loss())
    with pytest.raises(TypeError):
        keras.saving.serialize_keras_object(model.get_compile_config())
    assert not is_shared(model)
    assert dropout.rate == 0.3


def is_shared(model: keras.Model) -> bool:
    from hpo.spec.models import Augment
    from hpo.training.compiling import Settings
    from hpo.training.epochs import EpochRunner
    from hpo.training.reuse import GraphCache

    rows = np.zeros((8, 4), np.float32), np.zeros((8, 1), np.float32)
    cache = GraphCache()
    cache.traced(
        model,
        Settings(1, 32, "sgd", 0.1, 0.0, 0.0, 0.0, Augment()),
        lambda _: EpochRunner(model, rows, rows, 4),
    )
    return bool(cache._graphs)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_what_is_free_trains_as_what_is_not(optimizer: str) -> None:
    """To float32's precision: a plain runner has the numbers as constants."""
    import keras

    from hpo.spec.models import Augment
    from hpo.training.compiling import Settings
    from hpo.training.epochs import EpochRunner
    from hpo.training.reuse import GraphCache
    from hpo.training.seeding import begin_session

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 6)).astype("f4"), rng.integers(0, 3, 60)

    def made(seed: int, units: int, rate: float) -> keras.Model:
        begin_session(seed)
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(units, kernel_regularizer=keras.regularizers.L2(rate / 10)),
                keras.layers.BatchNormalization(),
                keras.layers.Activation("tanh"),
                keras.layers.Dropout(rate),
                keras.layers.Dense(3, "softmax"),
            ]
        )
        made_optimizer = keras.optimizers.get(optimizer)
        made_optimizer.weight_decay = rate / 100
        model.compile(made_optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def trained(runner: EpochRunner) -> list[float]:
        logs = []
        for epoch in (1, 2, 3):
            runner.seed(3, epoch)
            logs += [*runner.train(np.arange(60, dtype=np.int32)).values()]
            logs += [*runner.evaluate().values()]
        return logs

    cache = GraphCache()
    settings = Settings(1, 16, optimizer, 0.1, 0.0, 0.0, 0.0, Augment())
    for seed, units, rate in ((1, 8, 0.3), (2, 5, 0.5)):
        model = made(seed, units, rate)
        freed = cache.traced(model, settings, lambda _: EpochRunner(model, rows, rows, 16))  # noqa: B023
        plain = EpochRunner(made(seed, units, rate), rows, rows, 16)
        assert trained(freed.runner) == pytest.approx(trained(plain), rel=1e-5)
    assert len(cache._graphs) == 1


def test_the_cache_is_bounded(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.training.reuse._GRAPHS", 2)
    shared = make_bench(
        training={"epochs": 1}, space={"batch_size": {"type": "int", "low": 8, "high": 128}}
    )
    batches = (64, 100, 64, 128)
    for index, size in enumerate(batches):
        values = {"units": 4, "dropout": 0.5, "batch_size": size}
        run(shared, tmp_path / str(index), values)
    assert graphs(shared) == 2
    kept = [json.loads(structure)[-1][0] for structure in shared.graphs._graphs]
    assert kept == [64, 128]


def test_large_models_are_not_kept(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 64 * 8 + 8 + 8 * 10 + 10 weights and as many momentums, beside iterations and rate.
    monkeypatch.setattr("hpo.training.reuse._VARIABLES", 2 * 610 + 2)
    training = {"epochs": 1, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9}
    shared = make_bench(training=training, space={"units": {"type": "int", "low": 8, "high": 9}})
    run(shared, tmp_path / "small", {"units": 8})
    assert graphs(shared) == 1
    run(shared, tmp_path / "large", {"units": 9})
    assert graphs(shared) == 0


KEEPING = """
import keras_tuner


class Keeping(keras_tuner.HyperModel):
    def build(self, hp, input_shape, num_outputs):
        import keras

        head = keras.layers.Dense(num_outputs, "softmax")
        self.model = keras.Sequential([keras.Input(input_shape), head])
        self.model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return self.model

    def fit(self, hp, model, *args, **kwargs):
        return self.model.fit(*args, **kwargs)
"""


def test_a_model_that_the_user_s_code_keeps_until_the_next_one(
    make_bench: MakeBench, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "keeping.py").write_text(KEEPING)
    bench = with_builder(make_bench(training={"epochs": 1}, space={}), "keeping:Keeping", project)
    models: list[Any] = []
    watch = bench.graphs.watch

    def noting(model: Any) -> None:
        models.append(weakref.ref(model))
        watch(model)

    monkeypatch.setattr(bench.graphs, "watch", noting)
    try:
        for index in range(4):
            run(bench, tmp_path / str(index), {})
            bench.graphs.settle()
    finally:
        gc.freeze()
    assert [model() is not None for model in models] == [False, False, False, True]


def test_what_is_settled_goes_once_it_is_not_kept(
    make_bench: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hpo.training.trial as trial_module

    monkeypatch.setattr("hpo.training.reuse._GRAPHS", 2)
    models = []

    def build_model(*arguments: Any) -> Any:
        built = trial_module_build(*arguments)
        models.append(weakref.ref(built.model))
        return built

    trial_module_build = trial_module.build_model
    monkeypatch.setattr(trial_module, "build_model", build_model)
    shared = make_bench(
        training={"epochs": 1}, space={"batch_size": {"type": "int", "low": 8, "high": 128}}
    )
    try:
        # Alike ones, of which the first is kept; then others, until that one is thrown out.
        for index, size in enumerate((100, 100, 64, 128, 128)):
            run(shared, tmp_path / str(index), {"units": 4, "dropout": 0.5, "batch_size": size})
            shared.graphs.settle()
    finally:
        # As the fixture has left it.
        gc.freeze()
    assert [model() is not None for model in models] == [False, False, True, True, False]
