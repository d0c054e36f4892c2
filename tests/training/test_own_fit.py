"""HyperModels that bring their own `fit`, unmodified."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpo.errors import TrialError
from hpo.training.channel import TrialTask
from hpo.training.checkpoints import load_checkpoint
from tests.training.trials import KilledError, MemoryChannel, lowest, make_spec

if TYPE_CHECKING:
    from hpo.training.bench import Bench
    from hpo.training.trial import TrialEnd

pytestmark = pytest.mark.keras

HYPER_MODELS = """
import keras
import keras_tuner
import numpy as np
import tensorflow as tf
import tiny


class Net(keras_tuner.HyperModel):
    def build(self, hp, input_shape, num_outputs):
        model = keras.Sequential([
            keras.Input(input_shape),
            keras.layers.Dense(hp.Int("units", 8, 16), "relu", name="body"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(num_outputs, "softmax"),
        ])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model


class Plain(Net):
    def fit(self, hp, model, *args, **kwargs):
        batch_size = hp.Int("batch_size", 64, 256, sampling="log")
        return model.fit(*args, batch_size=batch_size, epochs=hp.Int("epochs", 3, 9), **kwargs)


class Dropping(Net):
    seen = []

    def fit(self, hp, model, x, y, validation_data, callbacks=None):
        class Own(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                Dropping.seen.append(epoch)

        history = model.fit(x, y, validation_data=validation_data, epochs=3, callbacks=[Own()])
        return max(history.history["val_accuracy"])


class Named(Net):
    def fit(self, hp, model, x, y, epochs, batch_size, validation_data, **kwargs):
        steps = []
        count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: steps.append(b))
        kwargs["callbacks"].append(count)
        model.fit(x, y, batch_size, epochs, 0, validation_data=validation_data, **kwargs)
        return {"steps": len(steps)}


class TwoPhases(Net):
    runs = []

    def fit(self, hp, model, *args, **kwargs):
        model.get_layer("body").trainable = False
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        first = model.fit(*args, epochs=2, **kwargs)
        model.get_layer("body").trainable = True
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        second = model.fit(*args, epochs=3, **kwargs)
        TwoPhases.runs.append([h.history["val_accuracy"] for h in (first, second)])
        return second


class Thawing(Net):
    def fit(self, hp, model, *args, **kwargs):
        # As models.finetune: the second phase has a tenth of the rate.
        model.get_layer("body").trainable = False
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(*args, epochs=2, **kwargs)
        model.get_layer("body").trainable = True
        optimizer = keras.optimizers.Adam(float(model.optimizer.learning_rate) / 10)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(*args, epochs=2, **kwargs)
        # A call for each epoch.
        model.fit(*args, epochs=1, **kwargs)


class TwoOptimizers(Net):
    def build(self, hp, num_outputs):
        return tiny.two_optimizers(hp, num_outputs)

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, epochs=3, shuffle=False, **kwargs)


class Loop(Net):
    epochs = []

    def fit(self, hp, model, x, y, validation_data, callbacks=None, **kwargs):
        # After KerasTuner's guide on custom training loops.
        for callback in callbacks:
            callback.set_model(model)
        rate = hp.Float("rate", 0.1, 0.2)
        for epoch in range(4):
            Loop.epochs.append(epoch)
            model.train_on_batch(x, y)
            loss, accuracy = model.evaluate(*validation_data, verbose=0)
            try:
                for callback in callbacks:
                    callback.on_epoch_end(epoch, logs={"val_loss": loss, "val_accuracy": accuracy})
            except Exception:
                pass
        return -accuracy


class Returning(Net):
    result = 0.25

    def fit(self, hp, model, *args, **kwargs):
        model.train_on_batch(*args)
        return Returning.result


class Inner(Net):
    def fit(self, hp, model, x, y, **kwargs):
        # Another model around the one that was built.
        outer = keras.Sequential([keras.Input(x.shape[1:]), model])
        outer.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return outer.fit(x, y, epochs=3, verbose=0, **kwargs)


class Dataset(Net):
    def fit(self, hp, model, x, y, validation_data, **kwargs):
        parts = [(x, y), validation_data]
        train, held = (tf.data.Dataset.from_tensor_slices(part).batch(128) for part in parts)
        return model.fit(train, validation_data=held, epochs=2, **kwargs)


class Restoring(Net):
    def fit(self, hp, model, *args, **kwargs):
        stop = keras.callbacks.EarlyStopping("val_loss", patience=0, start_from_epoch=1, mode="max")
        kwargs["callbacks"] += [stop]
        return model.fit(*args, epochs=9, **kwargs)


class Silent(Net):
    def fit(self, hp, model, x, y, **kwargs):
        model.fit(x, y, epochs=1)


class Encoding(Net):
    def build(self, hp, input_shape, num_outputs):
        model = super().build(hp, input_shape, num_outputs)
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        held, targets = validation_data
        assert y.shape == (len(x),)
        how = hp.Choice("how", ["left", "by_hand", "column", "dataset"])
        if how == "by_hand":
            y, targets = (keras.utils.to_categorical(each, 10) for each in (y, targets))
        if how == "column":
            y, targets = y[:, None], targets[:, None]
        if how == "dataset":
            rows = tf.data.Dataset.from_tensor_slices
            train, parts = rows((x, y)).batch(100), rows((held, targets)).batch(100)
            return model.fit(train, validation_data=parts, epochs=2, **kwargs)
        return model.fit(x, y, validation_data=(held, targets), epochs=2, **kwargs)


class Uncompiled(Net):
    def build(self, hp, input_shape, num_outputs):
        head = keras.layers.Dense(num_outputs)
        return keras.Sequential([keras.Input(input_shape), head])

    def fit(self, hp, model, x, y, validation_data, callbacks, **kwargs):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.Adam(0.1)
        for epoch in range(2):
            with tf.GradientTape() as tape:
                value = loss(y, model(x))
            weights = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(value, weights), weights))
            held = loss(validation_data[1], model(validation_data[0]))
            for callback in callbacks:
                callback.on_epoch_end(epoch, {"val_loss": float(held)})


class Errors(Net):
    def build(self, hp, input_shape, num_outputs):
        head = keras.layers.Dense(num_outputs, "sigmoid")
        model = keras.Sequential([keras.Input(input_shape), head])
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        model.fit(x, y, epochs=9, verbose=0)
        held, targets = validation_data
        # With targets of shape (rows, 1) this would compare all pairs.
        wrong = float(np.mean((model.predict(held, verbose=0)[:, 0] > 0.5) != targets))
        return {"error": wrong, "expected": 1 - model.evaluate(*validation_data, verbose=0)[1]}


class Exploding(Net):
    def fit(self, hp, model, *args, **kwargs):
        model.optimizer.learning_rate = 1e30
        return model.fit(*args, epochs=5, **kwargs)


instance = Plain()
"""

Make = Callable[..., "Bench"]


@pytest.fixture
def make(digits: Bench, project: Path) -> Make:
    """The digits with a HyperModel from the source above."""
    from hpo.training.builder import load_builder

    (project / "fitting.py").write_text(HYPER_MODELS)

    def bench(name: str, **sections: Any) -> Bench:
        sections = {"space": {}, "training": {"epochs": 3, "batch_size": 256}} | sections
        spec = make_spec(model={"builder": f"fitting:{name}"}, **sections)
        builder = load_builder(spec.model, digits.data.signature, project)
        return dataclasses.replace(digits, spec=spec, builder=builder)

    return bench


def run(
    bench: Bench, folder: Path, channel: MemoryChannel, token: int = 1, reported: int = 0
) -> TrialEnd:
    from hpo.training.trial import run_trial

    task = TrialTask(number=3, seed=11, token=token, folder=folder, reported=reported)
    return run_trial(bench, task, channel)


def module() -> Any:
    import sys

    return sys.modules["fitting"]


def check_kept(end: TrialEnd) -> None:
    """What remains of this lease is the checkpoint of the best epoch, and of the last one."""
    assert end.checkpoint is not None
    kept = load_checkpoint(end.checkpoint)
    assert kept is not None
    assert kept.epoch == end.progress.best_epoch
    kinds = {end.progress.best_epoch, end.progress.epoch}
    token = end.checkpoint.name.split(".")[1]
    assert len(list(end.checkpoint.parent.glob(f"*.{token}.zip"))) == len(kinds)


@pytest.mark.parametrize("name", ["Plain", "instance"])
def test_every_epoch_is_reported(make: Make, tmp_path: Path, name: str) -> None:
    channel = MemoryChannel(values={"epochs": 4, "batch_size": 100})
    end = run(make(name), tmp_path, channel)
    assert list(channel.suggested) == ["units", "batch_size", "epochs"]
    assert list(channel.reports) == [1, 2, 3, 4]
    assert channel.reports[4] == end.progress.history[3]["val_accuracy"]
    assert set(end.progress.history[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert not end.pruned
    check_kept(end)


def test_the_study_file_narrows_what_fit_declares(make: Make, tmp_path: Path) -> None:
    space = {"batch_size": {"type": "int", "low": 100, "high": 120}, "epochs": 3}
    channel = MemoryChannel()
    run(make("Plain", space=space), tmp_path, channel)
    assert channel.suggested["batch_size"].model_dump()["low"] == 100
    assert list(channel.reports) == [1, 2, 3]


@pytest.mark.parametrize(("name", "epochs"), [("Plain", 2), ("TwoPhases", 1), ("Inner", 2)])
def test_it_is_pruned(make: Make, tmp_path: Path, name: str, epochs: int) -> None:
    channel = MemoryChannel(prune_at=epochs)
    end = run(make(name), tmp_path, channel)
    assert end.pruned
    assert max(channel.reports) == epochs
    check_kept(end)


def test_dropped_callbacks_change_nothing(make: Make, tmp_path: Path) -> None:
    channel = MemoryChannel(prune_at=2)
    bench = make("Dropping")
    module().Dropping.seen.clear()
    assert run(bench, tmp_path, channel).pruned
    assert list(channel.reports) == [1, 2]
    # The HyperModel's own callbacks have run too.
    assert module().Dropping.seen == [0, 1]


def test_epochs_and_batch_size_are_handed_over_by_name(make: Make, tmp_path: Path) -> None:
    channel = MemoryChannel()
    bench = make("Named", training={"epochs": 2, "batch_size": 500})
    end = run(bench, tmp_path, channel)
    assert list(channel.reports) == [1, 2]
    assert "steps" not in end.progress.history[0]


def test_several_calls_of_model_fit_count_on(make: Make, tmp_path: Path) -> None:
    channel = MemoryChannel()
    bench = make("TwoPhases")
    module().TwoPhases.runs.clear()
    end = run(bench, tmp_path, channel)
    assert list(channel.reports) == [1, 2, 3, 4, 5]
    assert [len(values) for values in module().TwoPhases.runs[0]] == [2, 3]
    check_kept(end)


@pytest.mark.parametrize(
    ("name", "epochs", "killed_at"),
    [
        ("Plain", 3, 2),
        pytest.param("TwoPhases", 5, 1, marks=pytest.mark.long),
        ("TwoPhases", 5, 2),
        pytest.param("TwoPhases", 5, 4, marks=pytest.mark.long),
        pytest.param("TwoPhases", 5, 5, marks=pytest.mark.long),
        ("Dataset", 2, 1),
    ],
)
def test_a_takeover_goes_on_from_the_last_epoch(
    make: Make, tmp_path: Path, name: str, epochs: int, killed_at: int
) -> None:
    bench = make(name)
    first = MemoryChannel(die_after=killed_at)
    with pytest.raises(KilledError):
        run(bench, tmp_path, first)
    module().TwoPhases.runs.clear()
    second = MemoryChannel()
    end = run(bench, tmp_path, second, token=2, reported=killed_at)
    assert second.begun[0].epoch == killed_at
    assert list(second.reports) == list(range(killed_at + 1, epochs + 1))
    values = [logs["val_accuracy"] for logs in end.progress.history]
    assert values == [*first.reports.values(), *second.reports.values()]
    if name == "TwoPhases":
        assert module().TwoPhases.runs == [[values[:2], values[2:]]]
    check_kept(end)


@pytest.mark.parametrize("how", ["left", "by_hand", "column", "dataset"])
def test_labels_that_fit_encodes_by_itself_or_leaves(make: Make, tmp_path: Path, how: str) -> None:
    channel = MemoryChannel(values={"how": how})
    run(make("Encoding"), tmp_path, channel)
    assert list(channel.reports) == [1, 2]


def test_a_loop_of_its_own_with_a_model_that_nobody_has_compiled(
    make: Make, tmp_path: Path
) -> None:
    from hpo.training.bench import build_model
    from hpo.training.epochs import evaluate
    from hpo.training.targets import targets_for

    loss = {"metric": "val_loss", "direction": "minimize"}
    bench = make("Uncompiled", objective=loss)
    end = run(bench, tmp_path, MemoryChannel())
    # As the export does: its head has no activation, so it puts out logits.
    built = build_model(bench, lambda _, parameter: lowest(parameter), 1)
    assert end.checkpoint is not None
    checkpoint = load_checkpoint(end.checkpoint)
    assert checkpoint is not None
    built.model.set_weights(checkpoint.weights)
    held = bench.data.validation
    found = evaluate(built.model, (held.x, targets_for(built.model, held.y, built.signature)), 64)
    assert found["loss"] == pytest.approx(end.progress.best_value, rel=1e-4)


def test_targets_have_the_shape_that_the_data_gives_them(
    make: Make, project: Path, tmp_path: Path
) -> None:
    from hpo.training.bench import prepare

    make("Errors")
    source = {"type": "sklearn", "name": "breast_cancer"}
    spec = make_spec(
        data={"source": source, "preprocess": {"normalize": "standard"}},
        model={"builder": "fitting:Errors"},
        objective={"metric": "error", "direction": "minimize"},
        space={},
    )
    [logs] = run(prepare(spec, project), tmp_path, MemoryChannel()).progress.history
    assert logs["error"] == pytest.approx(logs["expected"], abs=1e-6)


def test_a_takeover_has_the_state_of_every_optimizer(make: Make, tmp_path: Path) -> None:
    bench = make("TwoOptimizers")
    whole = run(bench, tmp_path / "whole", MemoryChannel())
    with pytest.raises(KilledError):
        run(bench, tmp_path / "broken", MemoryChannel(die_after=1))
    broken = run(bench, tmp_path / "broken", MemoryChannel(), token=2, reported=1)
    assert broken.progress.history == whole.progress.history


def test_a_takeover_has_the_weights_of_the_last_epoch(make: Make, tmp_path: Path) -> None:
    bench = make("TwoPhases")
    with pytest.raises(KilledError):
        run(bench, tmp_path, MemoryChannel(die_after=4))
    history = run(bench, tmp_path, MemoryChannel(), token=2, reported=4).progress.history
    # A network that begins anew would be where the first epoch was.
    assert history[4]["loss"] < history[1]["loss"] < history[0]["loss"]


def test_a_loop_of_its_own_that_calls_the_callbacks(make: Make, tmp_path: Path) -> None:
    channel = MemoryChannel()
    end = run(make("Loop"), tmp_path, channel)
    assert list(channel.suggested) == ["units", "rate"]
    assert list(channel.reports) == [1, 2, 3, 4]
    check_kept(end)


def test_a_loop_of_its_own_is_left_when_it_is_pruned(make: Make, tmp_path: Path) -> None:
    bench = make("Loop")
    module().Loop.epochs.clear()
    channel = MemoryChannel(prune_at=2)
    assert run(bench, tmp_path, channel).pruned
    # Also one that takes every exception for its own.
    assert module().Loop.epochs == [0, 1]


def test_a_loop_of_its_own_begins_anew_after_a_takeover(make: Make, tmp_path: Path) -> None:
    bench = make("Loop")
    with pytest.raises(KilledError):
        run(bench, tmp_path, MemoryChannel(die_after=2))
    module().Loop.epochs.clear()
    channel = MemoryChannel()
    end = run(bench, tmp_path, channel, token=2, reported=2)
    assert module().Loop.epochs == [0, 1, 2, 3]
    # Also what the study knows: another loop's epochs may differ, and these are saved.
    assert list(channel.reports) == [1, 2, 3, 4]
    assert end.progress.epoch == 4
    check_kept(end)


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (0.25, 0.25),
        (np.float32(0.5), 0.5),
        ({"val_accuracy": 0.75, "other": 1, "text": "x"}, 0.75),
        ([0.25, 0.75], 0.5),
        ([{"val_accuracy": 1.0, "a": 1}, {"val_accuracy": 0.0}], 0.5),
    ],
)
def test_what_fit_returns_is_the_value_of_a_loop_that_reports_nothing(
    make: Make, tmp_path: Path, result: Any, value: float
) -> None:
    channel = MemoryChannel()
    bench = make("Returning")
    module().Returning.result = result
    end = run(bench, tmp_path, channel)
    assert channel.reports == {1: pytest.approx(value)}
    check_kept(end)


def test_a_returned_history(make: Make, tmp_path: Path) -> None:
    import keras

    history = keras.callbacks.History()
    history.history = {"val_accuracy": [0.5, 0.75], "loss": [2.0, 1.0]}
    bench = make("Returning")
    module().Returning.result = history
    end = run(bench, tmp_path, MemoryChannel())
    assert end.progress.history == [{"val_accuracy": 0.75, "loss": 1.0}]


@pytest.mark.parametrize(
    ("name", "result", "words"),
    [
        ("Returning", None, "it returned NoneType, and its epochs reported nothing"),
        ("Returning", {"mae": 1.0}, "it returned mae, and its epochs reported nothing"),
        ("Silent", None, "its epochs reported accuracy, loss"),
    ],
)
def test_no_value_at_all(make: Make, tmp_path: Path, name: str, result: Any, words: str) -> None:
    bench = make(name)
    module().Returning.result = result
    with pytest.raises(TrialError, match=f"fitting:{name} gave no 'val_accuracy': .*{words}"):
        run(bench, tmp_path, MemoryChannel())


@pytest.mark.long
def test_another_model_around_the_one_that_was_built(make: Make, tmp_path: Path) -> None:
    channel = MemoryChannel()
    end = run(make("Inner"), tmp_path, channel)
    assert list(channel.reports) == [1, 2, 3]
    check_kept(end)


@pytest.mark.long
def test_early_stopping_of_the_study_and_of_the_hypermodel(make: Make, tmp_path: Path) -> None:
    rule = {"patience": 1, "min_delta": 0.99}
    training = {"epochs": 9, "batch_size": 256, "early_stopping": rule}
    channel = MemoryChannel(values={"epochs": 9})
    end = run(make("Plain", training=training), tmp_path / "a", channel)
    assert (list(channel.reports), end.pruned) == ([1, 2], False)
    channel = MemoryChannel()
    run(make("Restoring"), tmp_path / "b", channel)
    assert 2 <= max(channel.reports) < 9


@dataclasses.dataclass
class Rates(MemoryChannel):
    """Notes the learning rate of each epoch."""

    folder: Path = Path()
    rates: list[float] = dataclasses.field(default_factory=list)

    def report(self, epoch: int, value: float) -> bool:
        newest = max(self.folder.glob("epoch-*.zip"), key=lambda path: path.name)
        found = load_checkpoint(newest)
        assert found is not None
        self.rates.append(float(found.optimizer[1]))
        return super().report(epoch, value)


def test_class_weights_and_schedule(make: Make, tmp_path: Path) -> None:
    schedule = {"type": "exponential", "decay": 0.5}
    training = {"batch_size": 256, "schedule": schedule, "class_weight": "balanced"}
    channel = Rates(folder=tmp_path)
    run(make("Plain", training=training), tmp_path, channel)
    assert channel.rates == pytest.approx([0.001, 0.0005, 0.00025])


@pytest.mark.parametrize("killed_at", [0, 2, 3])
def test_the_schedule_counts_once_in_every_phase(
    make: Make, tmp_path: Path, killed_at: int
) -> None:
    schedule = {"type": "exponential", "decay": 0.5}
    bench = make("Thawing", training={"batch_size": 512, "schedule": schedule})
    first = Rates(folder=tmp_path, die_after=killed_at)
    with pytest.raises(KilledError) if killed_at else contextlib.nullcontext():
        run(bench, tmp_path, first)
    rates = first.rates
    if killed_at:
        second = Rates(folder=tmp_path)
        run(bench, tmp_path, second, token=2, reported=killed_at)
        rates += second.rates
    base = [1e-3, 1e-3, 1e-4, 1e-4, 1e-4]
    assert rates == pytest.approx([rate * 0.5**epoch for epoch, rate in enumerate(base)])


def test_divergence(make: Make, tmp_path: Path) -> None:
    end = run(make("Exploding"), tmp_path, MemoryChannel())
    assert end.diverged is not None
    assert end.diverged.startswith("loss became")


def test_the_model_s_own_fit_is_back_afterwards(make: Make, tmp_path: Path) -> None:
    from hpo.training.bench import build_model

    bench = make("Plain")
    built = build_model(bench, MemoryChannel().suggest, 1)
    from hpo.training.dry_fit import dry_fit

    names = dry_fit(bench, built).metrics
    assert set(names) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert "fit" not in vars(built.model)
