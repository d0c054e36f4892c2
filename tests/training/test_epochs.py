from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hpo.training.epochs import EpochRunner, evaluate
from hpo.training.seeding import epoch_order, seed_epoch

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("deterministic")]

ROWS, BATCH = 150, 64
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype(np.float32)
Y = RNG.integers(0, 3, size=ROWS)
HELD = (X[:40], Y[:40])


def make(optimizer: Any = "sgd", kind: type[keras.Model] = keras.Model, **compiled: Any) -> Any:
    """A small classifier with batch normalization; the same weights each time."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    # A bias in front of the normalization has no effect; its gradient is what rounding left over,
    # and Adam would blow up the last digits of that.
    regularizer = keras.regularizers.L2(0.01)
    x = keras.layers.Dense(8, use_bias=False, kernel_regularizer=regularizer)(inputs)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    model = kind(inputs, keras.layers.Dense(3, activation="softmax")(x))
    options = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | compiled
    model.compile(optimizer=optimizer, **options)
    return model


def optimizers() -> dict[str, Any]:
    return {
        "sgd": keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        "adam": keras.optimizers.Adam(0.01, weight_decay=0.01),
    }


def graph_epochs(model: Any, epochs: int, *weights: Any) -> list[dict[str, float]]:
    runner = EpochRunner(model, (X, Y, *weights), HELD, BATCH)
    orders = [epoch_order(5, epoch, ROWS) for epoch in range(1, epochs + 1)]
    return [runner.train(order) | runner.evaluate() for order in orders]


def fit_epochs(model: Any, epochs: int, **options: Any) -> list[dict[str, Any]]:
    logs = []
    for epoch in range(1, epochs + 1):
        order = epoch_order(5, epoch, ROWS)
        done = model.fit(X[order], Y[order], batch_size=BATCH, shuffle=False, verbose=0, **options)
        logs.append({name: values[0] for name, values in done.history.items()})
    return logs


def check_equal(one: Any, other: Any) -> None:
    """Weights with the moving statistics, and the optimizer's variables."""
    for mine, theirs in (
        (one.weights, other.weights),
        (one.optimizer.variables, other.optimizer.variables),
    ):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=a.path)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_epoch_equals_fit(name: str) -> None:
    ours, theirs = make(optimizers()[name]), make(optimizers()[name])
    before = [np.asarray(weight).copy() for weight in ours.weights]
    logs = graph_epochs(ours, 2)
    expected = fit_epochs(theirs, 2, validation_data=HELD)
    check_equal(ours, theirs)
    assert not any(np.array_equal(a, b) for a, b in zip(before, ours.weights, strict=True))
    assert ours.optimizer.iterations == 2 * 3
    for mine, their in zip(logs, expected, strict=True):
        assert mine == pytest.approx(their, abs=1e-5)


def test_an_epoch_equals_a_loop_over_train_on_batch() -> None:
    ours, theirs = make(), make()
    graph_epochs(ours, 1)
    order = epoch_order(5, 1, ROWS)
    for start in range(0, ROWS, BATCH):
        rows = order[start : start + BATCH]
        theirs.train_on_batch(X[rows], Y[rows])
    check_equal(ours, theirs)


def test_sample_weights_equal_class_weight_in_keras() -> None:
    by_class = {0: 0.2, 1: 1.0, 2: 3.0}
    weights = np.asarray([by_class[label] for label in Y], np.float32)
    ours, theirs = make(), make()
    logs = graph_epochs(ours, 1, weights)[0]
    expected = fit_epochs(theirs, 1, class_weight=by_class)[0]
    check_equal(ours, theirs)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, abs=1e-5)


class OwnLogs(keras.Model):
    """Reports what its metrics don't, with logs inside logs and one that is no number."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            each = keras.losses.sparse_categorical_crossentropy(y, y_pred)
            loss = tf.reduce_mean(each)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {
            "loss": loss,
            "rows": tf.shape(x)[0],
            "more": {"norm": tf.linalg.global_norm(gradients), "deep": {"half": 0.5}},
            "each": each,
        }


def test_a_train_step_with_logs_of_its_own() -> None:
    # With metrics that a step does not use, `fit` fails.
    ours, theirs = (make(kind=OwnLogs, metrics=None) for _ in range(2))
    logs = graph_epochs(ours, 1)[0]
    expected = fit_epochs(theirs, 1)[0]
    check_equal(ours, theirs)
    assert expected.pop("each").shape == (ROWS % BATCH,)
    assert set(expected) == {"loss", "rows", "norm", "half"}
    assert {name: logs[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert set(logs) - set(expected) == {"val_loss"}


class SameNames(keras.Model):
    """Returns other numbers under the names of its metrics; `fit` shows the metrics."""

    def train_step(self, data: Any) -> dict[str, Any]:
        return {name: value * 0 - 1 for name, value in super().train_step(data).items()}


def test_logs_with_the_names_of_the_metrics_are_the_metrics() -> None:
    logs = graph_epochs(make(kind=SameNames), 1)[0]
    expected = fit_epochs(make(kind=SameNames), 1)[0]
    assert expected["loss"] > 0
    assert {name: logs[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_a_metric_that_is_no_number_is_left_out() -> None:
    y = keras.utils.to_categorical(Y, 3)
    metrics = [keras.metrics.F1Score(name="each"), keras.metrics.F1Score("macro", name="mean")]
    model = make(loss="categorical_crossentropy", metrics=metrics)
    runner = EpochRunner(model, (X, y), (X[:40], y[:40]), BATCH)
    assert set(runner.train(epoch_order(0, 1, ROWS))) == {"loss", "mean"}


@pytest.mark.parametrize("batch_size", [ROWS, 1000])
def test_one_batch_an_epoch(batch_size: int) -> None:
    ours, theirs = make(), make()
    EpochRunner(ours, (X, Y), HELD, batch_size).train(np.arange(ROWS, dtype=np.int32))
    theirs.fit(X, Y, batch_size=ROWS, shuffle=False, verbose=0)
    check_equal(ours, theirs)


def test_evaluate_equals_keras_over_several_batches() -> None:
    x = RNG.normal(size=(300, 128, 128)).astype(np.float32)
    y = RNG.integers(0, 3, size=300)
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, "softmax", kernel_regularizer="l2")]
    model = keras.Sequential([keras.Input((128, 128)), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    # 300 rows of 16,384 numbers are two batches.
    assert evaluate(model, (x, y), 32) == pytest.approx(expected, abs=1e-5)
    assert EpochRunner(model, (x, y), (x, y), 32).evaluate() == pytest.approx(
        {f"val_{name}": value for name, value in expected.items()}, abs=1e-5
    )


def test_a_model_that_was_part_of_another_graph() -> None:
    inputs = keras.Input((6,))
    layer = keras.layers.Dense(3, "softmax", activity_regularizer="l2")
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    # The layer keeps the loss of what it was called with last.
    tf.function(lambda: model(tf.constant(X)))()
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)
    tf.function(lambda: model(tf.constant(X)))()
    assert evaluate(model, (X, Y), BATCH)["accuracy"] == pytest.approx(expected["accuracy"])


def test_code_of_the_users_sees_outputs_of_the_model_alone() -> None:
    seen: list[Any] = []

    def loss(y: Any, predicted: Any) -> Any:
        seen.append(predicted)
        tf.debugging.assert_positive(predicted)
        return keras.losses.sparse_categorical_crossentropy(y, predicted)

    assert graph_epochs(make(loss=loss), 1)[0]["loss"] > 0
    assert not any(hasattr(predicted, "numpy") for predicted in seen)


class GlobalNoise(keras.layers.Layer):
    """Draws from Keras's global generator."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


def test_random_layers_depend_on_seed_and_epoch_alone() -> None:
    def draw(seed: int, epoch: int, before: int = 0) -> Any:
        keras.backend.clear_session()
        keras.utils.set_random_seed(before)
        inner = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.GaussianNoise(1.0)])
        model = keras.Sequential([keras.Input((20,)), inner, GlobalNoise()])
        for _ in range(before):
            model(np.ones((3, 20)), training=True)
        seed_epoch(model, seed, epoch)
        return np.asarray(model(np.ones((3, 20)), training=True))

    first = draw(1, 1)
    np.testing.assert_array_equal(first, draw(1, 1, before=2))
    assert not np.array_equal(first, draw(1, 2))
    assert not np.array_equal(first, draw(2, 1))


def test_the_order_of_rows_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(1, 2, 100)
    assert order.dtype == np.int32
    assert sorted(order) == list(range(100))
    np.testing.assert_array_equal(order, epoch_order(1, 2, 100))
    assert not np.array_equal(order, epoch_order(1, 3, 100))
    assert not np.array_equal(order, epoch_order(2, 2, 100))
