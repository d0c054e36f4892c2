from __future__ import annotations

import ast
import importlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[2]
BUILDERS = ["mlp", "cnn", "resnet", "rnn", "transformer", "tabular", "finetune"]
LOSSES = {
    "binary": "binary_crossentropy",
    "multiclass": "sparse_categorical_crossentropy",
    "multilabel": "binary_crossentropy",
}


@pytest.mark.parametrize("name", BUILDERS)
def test_builder_imports_keras_and_keras_tuner_only(name: str) -> None:
    tree = ast.parse((PROJECT / "models" / f"{name}.py").read_text())
    imported = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    froms = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {"keras", "keras_tuner"} <= imported <= {"keras", "keras_tuner", "math"}
    assert froms <= {"__future__", "keras"}


@pytest.fixture
def hp(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(PROJECT)
    keras_tuner = pytest.importorskip("keras_tuner")
    return keras_tuner.HyperParameters()


def targets(rng: np.random.Generator, task: str, outputs: int) -> Any:
    if task == "multiclass":
        return rng.integers(0, outputs, size=32)
    if task == "regression":
        return rng.normal(size=(32, outputs)).astype(np.float32)
    return rng.integers(0, 2, size=(32, outputs)).astype(np.float32)


def fit_one_epoch(model: Any, shape: tuple[int, ...], task: str, outputs: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *shape)).astype(np.float32)
    y = targets(rng, task, outputs)
    assert not model.compiled
    model.compile(optimizer="adam", loss=LOSSES.get(task, "mse"))
    history = model.fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    # Not with predict, which traces a graph of its own.
    assert model(x).shape == (32, outputs)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("shape", "task", "outputs", "batchnorm"),
    [
        ((4,), "binary", 1, True),
        ((8, 8, 1), "multiclass", 10, False),
        ((5,), "regression", 3, True),
        ((5,), "multilabel", 3, False),
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
        ((8, 8, 1), "multilabel", 3, 2),
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


def values_at(build: Any, end: str, **most: int) -> Any:
    """Hyperparameters that are all at the lowest or highest end, or drawn with a seed.

    Building asks for them, so each build may ask for more: the depth decides how many units.
    `most` keeps models small enough for a test.
    """
    import keras_tuner

    hp, known = keras_tuner.HyperParameters(), 0
    while True:
        build(hp)
        if len(hp.space) == known:
            return hp
        known = len(hp.space)
        for parameter in hp.space:
            prob = {"lowest": 0.0, "highest": 1.0 - 1e-9}.get(end)
            if prob is None:
                hp.values[parameter.name] = parameter.random_sample(seed=int(end))
            else:
                hp.values[parameter.name] = parameter.prob_to_value(prob)
        hp.values.update({n: min(hp.values[n], m) for n, m in most.items() if n in hp.values})


def check(build: Any, x: Any, task: str, outputs: int, tmp_path: Path) -> Any:
    """Trains for a step; what is saved and loaded back, with Keras alone, puts out the same."""
    import keras

    model = build()
    assert not model.compiled
    model.compile(optimizer="adam", loss=LOSSES.get(task, "mse"))
    y = targets(np.random.default_rng(1), task, outputs)
    history = model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    predicted = outputs_of(model, x)
    assert predicted.shape == (32, outputs)
    if task == "multiclass":
        np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert_close(outputs_of(loaded, x), predicted)
    return loaded


def outputs_of(model: Any, x: Any) -> Any:
    """Without a graph, which for a single call takes longer to trace than it saves."""
    return np.asarray(model(x, training=False))


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


ENDS = ["lowest", "highest", "1", "2"]
TASKS = [("binary", 1), ("multiclass", 4), ("multilabel", 3), ("regression", 2)]
ENDS_AND_TASKS = [(end, *task) for end, task in zip(ENDS, TASKS, strict=True)]
PADDING = -9.0


def cases(more: Callable[[str], tuple[Any, ...]]) -> list[Any]:
    """The ends and tasks with `more` arguments; the largest models take long to trace."""
    return [
        pytest.param(*row, *more(row[0]), marks=[pytest.mark.long] * (row[0] in ("highest", "2")))
        for row in ENDS_AND_TASKS
    ]


@pytest.mark.keras
@pytest.mark.parametrize(("end", "task", "outputs"), cases(lambda end: ()))
@pytest.mark.parametrize("shape", [(9, 8, 3)])
def test_resnet(
    hp: Any, end: str, task: str, outputs: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    from models import resnet

    hp = values_at(lambda hp: resnet.build(hp, shape, outputs, task), end, filters=8, blocks=2)
    x = np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)
    check(lambda: resnet.build(hp, shape, outputs, task), x, task, outputs, tmp_path)


@pytest.mark.keras
def test_resnet_stages_go_with_the_picture(hp: Any) -> None:
    from models.resnet import build, most_stages

    assert [most_stages((side, 99, 1)) for side in (1, 2, 4, 8, 64)] == [1, 1, 2, 3, 4]
    hp.values.update({"stages": 3, "blocks": 2, "filters": 8, "batchnorm": True})
    model = build(hp, (96, 96, 3), 1, "binary")
    sums = [layer.output.shape[1:] for layer in model.layers if type(layer).__name__ == "Add"]
    # A large picture is halved before the first stage.
    assert sums == [(48, 48, 8)] * 2 + [(24, 24, 16)] * 2 + [(12, 12, 32)] * 2


@pytest.mark.keras
@pytest.mark.parametrize(
    ("end", "task", "outputs", "mask_value"),
    cases(lambda end: (None if end == "1" else PADDING,)),
)
@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_sequence_builders(
    hp: Any, name: str, end: str, task: str, outputs: int, mask_value: float | None, tmp_path: Path
) -> None:
    build = importlib.import_module(f"models.{name}").build
    arguments = ((7 if end == "1" else None, 2), outputs, task, mask_value)
    hp = values_at(lambda hp: build(hp, *arguments), end, depth=2, units_0=9, units_1=8, width=32)
    x = np.random.default_rng(0).normal(size=(32, 7, 2)).astype(np.float32)
    if mask_value is not None:
        x[:16, 4:] = mask_value
    model = check(lambda: build(hp, *arguments), x, task, outputs, tmp_path)
    if mask_value is not None:
        padded = np.pad(x, [(0, 0), (0, 5), (0, 0)], constant_values=mask_value)
        assert_close(outputs_of(model, padded), outputs_of(model, x))
        assert_close(outputs_of(model, x[:16, :4]), outputs_of(model, x[:16]))


@pytest.mark.keras
@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_sequence_builders_use_the_order_and_bear_an_empty_sequence(hp: Any, name: str) -> None:
    build = importlib.import_module(f"models.{name}").build
    model = build(hp, (None, 2), 1, "regression", PADDING)
    x = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    assert np.abs(outputs_of(model, x) - outputs_of(model, x[:, ::-1])).max() > 1e-4
    assert np.isfinite(outputs_of(model, np.full_like(x, PADDING))).all()


@pytest.mark.keras
@pytest.mark.parametrize(
    ("end", "task", "outputs", "columns"),
    [
        *cases(lambda end: ("both",)),
        pytest.param("highest", "binary", 1, "codes", marks=pytest.mark.long),
        ("1", "binary", 1, "numbers"),
        pytest.param("2", "binary", 1, "tuple", marks=pytest.mark.long),
    ],
)
def test_tabular(hp: Any, end: str, task: str, outputs: int, columns: str, tmp_path: Path) -> None:
    from models.tabular import build

    sizes = {"home town": 9, "sex": 3} if columns in {"both", "codes"} else {}
    rng = np.random.default_rng(0)
    x: Any = {name: rng.integers(0, size, 32) for name, size in sizes.items()}
    if columns != "codes":
        x["numeric"] = rng.normal(size=(32, 5)).astype(np.float32)
    shape: Any = {name: values.shape[1:] for name, values in x.items()}
    if columns == "tuple":
        shape, x = shape["numeric"], x["numeric"]
    hp = values_at(lambda hp: build(hp, shape, outputs, task, sizes), end)
    assert ("embedding_power" in hp.values) == bool(sizes)
    model = check(lambda: build(hp, shape, outputs, task, sizes), x, task, outputs, tmp_path)
    assert set(model.input if isinstance(model.input, dict) else shape) == set(shape)


@pytest.mark.keras
def test_tabular_embeddings_grow_with_their_column(hp: Any) -> None:
    from models.tabular import build

    hp.values["embedding_power"] = 0.5
    sizes = {"two": 2, "hundred": 100, "many": 10_000}
    model = build(hp, dict.fromkeys(sizes, ()), 1, "binary", sizes)
    embeddings = [layer for layer in model.layers if type(layer).__name__ == "Embedding"]
    found = {layer.input_dim: layer.output_dim for layer in embeddings}
    assert found == {2: 2, 100: 10, 10_000: 64}


@pytest.fixture
def small_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of three layers with weights, beside its own way of scaling pixels."""
    import keras

    def tiny(include_top: bool, weights: Any, input_shape: Any, pooling: str, name: str) -> Any:
        inputs = keras.Input(input_shape)
        x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        pool = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
        model = keras.Model(inputs, pool[pooling]()(x), name=name)
        if weights:
            model.load_weights(weights)
        return model

    home = types.SimpleNamespace(Tiny=tiny, preprocess_input=lambda x: x / 127.5 - 1.0)
    monkeypatch.setattr(keras.applications, "Tiny", tiny, raising=False)
    monkeypatch.setattr(keras.applications, "tiny", home, raising=False)


def finetune(shape: tuple[int, ...], outputs: int, task: str, **arguments: Any) -> Any:
    from models.finetune import FineTune

    return FineTune(input_shape=shape, num_outputs=outputs, task=task, **arguments)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("end", "task", "outputs", "channels"),
    cases(lambda end: (3 if end == "1" else 1,)),
)
def test_finetune(
    hp: Any, small_bodies: None, end: str, task: str, outputs: int, channels: int, tmp_path: Path
) -> None:
    builder = finetune((8, 8, channels), outputs, task, body="Tiny", image_size=12)
    hp = values_at(builder.build, end)
    x = np.random.default_rng(0).integers(0, 256, size=(32, 8, 8, channels))
    check(lambda: builder.build(hp), x.astype(np.float32), task, outputs, tmp_path)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("MobileNetV2", 32),
        pytest.param("VGG16", 32, marks=pytest.mark.long),
        pytest.param("EfficientNetB0", 32, marks=pytest.mark.long),
    ],
)
def test_finetune_takes_raw_pixels_for_the_bodies_of_keras(
    hp: Any, body: str, size: int, tmp_path: Path
) -> None:
    import keras

    home = next(m for m in vars(keras.applications).values() if hasattr(m, body))
    file = tmp_path / "body.weights.h5"
    own = getattr(keras.applications, body)(include_top=False, weights=None, pooling="avg")
    own.save_weights(file)
    model = finetune((size, size, 1), 1, "regression", body=body, weights=str(file)).build(hp)
    x = np.random.default_rng(0).integers(0, 256, size=(2, size, size, 1)).astype(np.float32)
    # With neither head units nor dropout, what goes into the last layer is what the body puts out.
    features = keras.Model(model.input, model.layers[-1].input)
    pixels = home.preprocess_input(np.repeat(x, 3, axis=-1))
    assert_close(outputs_of(features, x), outputs_of(own, pixels))


class Watch:
    """What may train, the rate and the epoch, at the begin of each epoch."""

    def __init__(self, stop_at: int | None = None) -> None:
        import keras

        self.seen: list[tuple[int, int, float]] = []
        watch = self

        class Callback(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                body = self.model.get_layer("body")
                trained = [layer for layer in body.layers if layer.trainable_weights]
                rate = round(float(self.model.optimizer.learning_rate), 6)
                watch.seen.append((epoch, len(trained), rate))

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                if epoch == stop_at:
                    self.model.stop_training = True

        self.callback = Callback()


def fit_as_a_tuner(
    values: dict[str, Any], epochs: int = 4, stop_at: int | None = None, **more: Any
) -> tuple[Any, list[tuple[int, int, float]], Any, Any]:
    """Trains as KerasTuner's Tuner does; the history, what was seen, body weights before, after."""
    import keras_tuner

    builder, hp = finetune((8, 8, 3), 4, "multiclass", body="Tiny"), keras_tuner.HyperParameters()
    hp.values.update({"head_epochs": 2, "unfreeze_rate": 0.1} | values)
    model = builder.build(hp)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = model.get_layer("body").get_weights()
    x = np.random.default_rng(0).integers(0, 256, size=(32, 8, 8, 3)).astype(np.float32)
    y = targets(np.random.default_rng(1), "multiclass", 4)
    watch = Watch(stop_at)
    history = builder.fit(
        hp,
        model,
        x=x,
        y=y,
        validation_data=(x, y),
        epochs=epochs,
        callbacks=[watch.callback],
        verbose=0,
        **more,
    )
    return history.history, watch.seen, before, model.get_layer("body").get_weights()


@pytest.mark.keras
def test_finetune_trains_the_head_first_and_then_the_last_layers(
    hp: Any, small_bodies: None
) -> None:
    history, seen, before, after = fit_as_a_tuner({"unfreeze": 1})
    assert seen == [(0, 0, 1e-3), (1, 0, 1e-3), (2, 1, 1e-4), (3, 1, 1e-4)]
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert {len(values) for values in history.values()} == {4}
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    # Kernel and bias, then batch normalization, stay; the last convolution's two change.
    assert changed == [False] * 6 + [True] * 2


@pytest.mark.keras
@pytest.mark.parametrize(
    ("values", "more", "expected"),
    [
        ({"unfreeze": 0}, {}, [(0, 0), (1, 0), (2, 0), (3, 0)]),
        ({"unfreeze": 3, "head_epochs": 9}, {}, [(0, 0), (1, 0), (2, 0), (3, 0)]),
        ({"unfreeze": 3}, {}, [(0, 0), (1, 0), (2, 3), (3, 3)]),
        ({"unfreeze": 2}, {"initial_epoch": 1}, [(1, 0), (2, 2), (3, 2)]),
        ({"unfreeze": 2}, {"initial_epoch": 3}, [(3, 2)]),
        ({"unfreeze": 2}, {"stop_at": 0}, [(0, 0)]),
        ({"unfreeze": 2}, {"stop_at": 2}, [(0, 0), (1, 0), (2, 2)]),
    ],
)
def test_finetune_phases(
    hp: Any,
    small_bodies: None,
    values: dict[str, Any],
    more: dict[str, Any],
    expected: list[tuple[int, int]],
) -> None:
    history, seen, *_ = fit_as_a_tuner(values, **more)
    assert [(epoch, trained) for epoch, trained, _ in seen] == expected
    assert len(history["val_loss"]) == len(expected)


@pytest.mark.keras
@pytest.mark.long
def test_finetune_in_a_search_of_keras_tuner(
    hp: Any, small_bodies: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras_tuner

    # It imports tensorboard, whether or not there is a callback for it.
    monkeypatch.setattr(keras_tuner.Tuner, "_configure_tensorboard_dir", lambda *_: None)

    class Compiled(type(finetune((8, 8, 1), 1, "binary"))):  # type: ignore[misc]
        def build(self, hp: Any) -> Any:
            model = super().build(hp)
            model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
            return model

    builder = Compiled(input_shape=(8, 8, 1), num_outputs=1, task="binary", body="Tiny")
    tuner = keras_tuner.RandomSearch(
        builder, objective="val_accuracy", max_trials=2, directory=tmp_path, seed=3
    )
    x = np.random.default_rng(0).integers(0, 256, size=(32, 8, 8, 1)).astype(np.float32)
    y = targets(np.random.default_rng(1), "binary", 1)
    tuner.search(x, y, validation_data=(x, y), epochs=12, verbose=0)
    assert len(tuner.oracle.get_best_trials(5)) == 2
    assert tuner.get_best_models(1)[0].predict(x, verbose=0).shape == (32, 1)


@pytest.mark.keras
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet", (64,), r"\(height, width, channels\), received \(64,\); set data.preproc"),
        ("resnet", (None, 8, 3), r"one shape .* received \(None, 8, 3\)"),
        ("rnn", (64,), r"\(time, features\), received \(64,\)"),
        ("rnn", (None, None), r"\(time, features\), received \(None, None\)"),
        ("transformer", (8, 8, 1), r"\(time, features\), received \(8, 8, 1\)"),
        ("tabular", (8, 8), r"received \(8, 8\) for 'numeric'"),
        ("tabular", {"numeric": (2,), "town": ()}, r"received \(\) for 'town'"),
    ],
)
def test_builders_refuse_other_shapes(hp: Any, name: str, shape: Any, message: str) -> None:
    build = importlib.import_module(f"models.{name}").build
    with pytest.raises(ValueError, match=message):
        build(hp, shape, 1, "binary")


@pytest.mark.keras
@pytest.mark.parametrize("shape", [(64,), (8, 8, 2)])
def test_finetune_refuses_other_shapes(hp: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(height, width, 1 or 3\), received \("):
        finetune(shape, 1, "binary")
