"""Graphs that trainers of a machine share: found, the same to the last bit, never wrong."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpo.training.channel import TrialTask
from tests.training.test_trial import LastState, check_same_state

if TYPE_CHECKING:
    from hpo.training.bench import Bench

pytestmark = pytest.mark.keras

MakeBench = Callable[..., "Bench"]

KINDS = """
import keras

layers = keras.layers


def dense(hp, input_shape, num_outputs):
    x = inputs = keras.Input(input_shape)
    x = layers.BatchNormalization()(layers.Dense(hp.Int("units", 4, 16), "relu")(x))
    x = layers.Dropout(hp.Float("rate", 0.1, 0.6))(x)
    return keras.Model(inputs, layers.Dense(num_outputs, "softmax")(x))


def convolution(hp, input_shape, num_outputs):
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dropout(hp.Float("rate", 0.1, 0.6)),
        layers.Dense(num_outputs, "softmax"),
    ])


def recurrent(hp, input_shape, num_outputs):
    return keras.Sequential([
        keras.Input(input_shape),
        layers.Reshape((8, 8)),
        layers.LSTM(6, dropout=0.2),
        layers.Dense(num_outputs, "softmax"),
    ])


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


def own(hp, input_shape, num_outputs):
    return keras.Sequential([
        keras.Input(input_shape), Twice(), layers.Dense(num_outputs, "softmax"),
    ])
"""
NUMBERS = {"units": 8, "rate": 0.3}
OTHERS = {"units": 13, "rate": 0.5}


@pytest.fixture
def make(make_bench: MakeBench, tmp_path: Path) -> MakeBench:
    from hpo.spec.models import ModelSpec
    from hpo.training.builder import load_builder
    from hpo.training.graphs import GraphFolder

    (tmp_path / "kinds.py").write_text(KINDS)

    def make(name: str, folder: Path | None, study: str = "a study", **training: Any) -> Bench:
        made = make_bench(training={"epochs": 2, "batch_size": 256, "seed": 5} | training)
        spec = ModelSpec(builder=f"kinds:{name}")
        builder = load_builder(spec, made.data.signature, tmp_path)
        shared = None if folder is None else GraphFolder(folder, study)
        return replace(made, builder=builder, folder=shared)

    return make


def run(bench: Bench, folder: Path, values: dict[str, Any], seed: int = 11) -> LastState:
    from hpo.training.trial import run_trial

    channel = LastState(values=values, folder=folder)
    run_trial(bench, TrialTask(number=3, seed=seed, token=1, folder=folder, reported=0), channel)
    return channel


def trace_no_more(patch: pytest.MonkeyPatch) -> None:
    def traced(*_: Any) -> None:
        raise AssertionError("traced again")

    patch.setattr("hpo.training.epochs._traced_epoch", traced)


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("dense", {"optimizer": "adam"}),
        ("dense", {"optimizer": "sgd", "momentum": 0.5, "augment": {"noise": 0.1}}),
        ("convolution", {"class_weight": "balanced"}),
        ("recurrent", {}),
    ],
)
def test_a_graph_from_a_file_trains_the_same_to_the_last_bit(
    make: MakeBench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    training: dict[str, Any],
) -> None:
    alone = run(make(name, None, **training), tmp_path / "alone", OTHERS)
    shared = tmp_path / "graphs"
    first = run(make(name, shared, **training), tmp_path / "first", NUMBERS, seed=4)
    files = sorted(path.name for path in shared.rglob("*") if path.is_file())
    assert files == ["evaluate", "train"]
    # Another trainer, as far as its bench goes: it has never seen this structure.
    trace_no_more(monkeypatch)
    found = run(make(name, shared, **training), tmp_path / "found", OTHERS)
    assert found.reports == alone.reports != first.reports
    check_same_state(found.last, alone.last)


def test_another_study_or_structure_finds_nothing(make: MakeBench, tmp_path: Path) -> None:
    shared = tmp_path / "graphs"
    run(make("dense", shared), tmp_path / "1", NUMBERS)
    run(make("dense", shared, "another study"), tmp_path / "2", NUMBERS)
    assert len(list(shared.iterdir())) == 2
    run(make("convolution", shared), tmp_path / "3", NUMBERS)
    assert len(list(shared.iterdir())) == 3


def test_a_study_s_graphs_are_those_of_its_data(digits: Bench, tmp_path: Path) -> None:
    from hpo.training.bench import prepare
    from tests.training.trials import make_spec

    project = tmp_path / "project"
    project.mkdir()
    (project / "tiny.py").write_text("def mlp(hp): ...")
    data = {"source": {"type": "sklearn", "name": "digits"}, "split": {"seed": 3}}
    specs = [make_spec(), make_spec(training={"epochs": 7}), make_spec(data=data)]
    studies = []
    for spec in specs:
        bench = prepare(spec, project, tmp_path / "graphs")
        assert bench.folder is not None
        studies.append(bench.folder.study)
    assert len(set(studies)) == 3
    assert digits.folder is None


def test_what_holds_code_of_the_user_s_leaves_no_file(make: MakeBench, tmp_path: Path) -> None:
    shared = tmp_path / "graphs"
    run(make("own", shared), tmp_path / "own", {})
    assert not shared.exists()


def test_what_others_could_not_find_leaves_no_file(tmp_path: Path) -> None:
    import tensorflow as tf

    from hpo.training.graphs import GraphFolder

    held, hidden = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])
    files = GraphFolder(tmp_path, "a study").of_structure("a structure", [])

    def trace(*variables: tf.Variable) -> Any:
        def total(factor: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"total": factor * sum(tf.reduce_sum(each) for each in variables)}

        argument = tf.TensorSpec([], tf.float32)
        return tf.function(total, input_signature=[argument]).get_concrete_function()

    graph = files.graph("both", [held.handle], lambda: trace(held, hidden))
    assert float(graph(tf.constant(2.0))["total"]) == 20
    assert not files.folder.exists()
    graph = files.graph("one", [held.handle], lambda: trace(held))
    assert (files.folder / "one").is_file()
    held.assign([5.0, 6.0])
    assert float(graph(tf.constant(2.0))["total"]) == 22


def test_without_a_place_for_files_trials_train(make: MakeBench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    alone = run(make("dense", None), tmp_path / "alone", NUMBERS)
    bench = make("dense", tmp_path / "file" / "graphs")
    assert run(bench, tmp_path / "run", NUMBERS).reports == alone.reports


def test_a_graph_that_is_dropped_leaves_nothing_in_tensorflow(
    make: MakeBench, tmp_path: Path
) -> None:
    from tensorflow.python.eager import context

    def loaded() -> set[str]:
        names = context.context().list_function_names()
        return {name for name in names if "loaded_" in name}

    gc.collect()
    before = loaded()
    bench = make("dense", tmp_path / "graphs")
    run(bench, tmp_path / "run", NUMBERS)
    assert loaded() > before
    bench.graphs._graphs.clear()
    del bench
    gc.collect()
    assert loaded() == before
