from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hpo.data import DataSignature
from hpo.errors import BuilderError
from hpo.training.targets import check_output, given_targets, signature_for, targets_for

pytestmark = pytest.mark.keras

THREE = DataSignature("multiclass", (4,), 3, 3, ("a", "b", "c"), (4, 1, 1), (2, 1, 1), "")
TWO = DataSignature("binary", (4,), 2, 1, ("no", "yes"), (4, 1, 1), (3, 1), "")
VALUES = DataSignature("regression", (4,), None, 1, None, (4, 1, 1), None, "")


def model_for(signature: DataSignature) -> Any:
    layers = [keras.Input((4,)), keras.layers.Dense(signature.num_outputs, "sigmoid")]
    return keras.Sequential(layers)


def own_loss(y_true: Any, y_pred: Any) -> Any:
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


class OwnLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return own_loss(y_true, y_pred)


class Weighted(keras.losses.CategoricalCrossentropy):
    pass


@pytest.mark.parametrize(
    ("loss", "one_hot"),
    [
        ("sparse_categorical_crossentropy", False),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), False),
        (keras.losses.sparse_categorical_crossentropy, False),
        (own_loss, False),
        (OwnLoss(), False),
        ("categorical_crossentropy", True),
        ("CategoricalCrossentropy", True),
        (keras.losses.categorical_crossentropy, True),
        (Weighted(), True),
        ("mse", True),
        (["kl_divergence"], True),
        ({"head": "categorical_hinge"}, True),
    ],
)
def test_targets_as_the_loss_wants_them(loss: Any, one_hot: bool) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {"head": keras.layers.Dense(3, "softmax", name="head")(inputs)})
    if not isinstance(loss, dict):
        model = keras.Model(inputs, model.outputs)
    model.compile("sgd", loss)
    y = np.array([2, 0, 1, 1])
    targets = targets_for(model, y, THREE)
    expected = np.eye(3, dtype=np.float32)[y] if one_hot else y
    np.testing.assert_array_equal(targets, expected)
    assert targets.dtype == expected.dtype
    assert np.isfinite(model.train_on_batch(np.ones((4, 4)), targets))


def test_targets_of_a_model_without_a_loss() -> None:
    model = model_for(THREE)
    model.compile("sgd")
    assert targets_for(model, np.array([1, 2]), THREE).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("signature", "shape", "given"),
    [
        (TWO, (), [0, 1, 1]),
        (TWO, (1,), [[0], [1], [1]]),
        (TWO, (2,), [[1, 0], [0, 1], [0, 1]]),
        (THREE, (), [0, 1, 1]),
        (THREE, (3,), [[1, 0, 0], [0, 1, 0], [0, 1, 0]]),
        (VALUES, (), [0, 1, 1]),
    ],
)
def test_targets_as_the_data_has_them(
    signature: DataSignature, shape: tuple[int, ...], given: Any
) -> None:
    y = np.array([0, 1, 1], np.float32 if signature is VALUES else np.int64)
    found = given_targets(y, replace(signature, target_shape=shape))
    np.testing.assert_array_equal(found, given)


class OwnStep(keras.Model):
    """Its step would see a table of all pairs of rows, were the targets a column."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((y - self(x)[:, 0]) ** 2)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


def own_metric(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y_true - y_pred[:, 0]))


@pytest.mark.parametrize(
    ("model", "loss", "metrics", "shape"),
    [
        (model_for(VALUES), "mse", ["mae"], (3, 1)),
        (
            model_for(VALUES),
            keras.losses.mean_squared_error,
            [keras.metrics.mean_absolute_error],
            (3, 1),
        ),
        (model_for(VALUES), keras.losses.Huber(), [keras.metrics.R2Score()], (3, 1)),
        (model_for(VALUES), "mse", [keras.metrics.MeanMetricWrapper(own_metric)], (3,)),
        (model_for(VALUES), "mse", [own_metric], (3,)),
        (model_for(VALUES), lambda y, p: keras.ops.mean((y - p) ** 2), [], (3,)),
        (OwnStep(), None, [], (3,)),
    ],
)
def test_code_of_the_user_s_gets_what_the_data_has(
    model: Any, loss: Any, metrics: list[Any], shape: tuple[int, ...]
) -> None:
    model.compile("sgd", loss, metrics=metrics)
    y = np.array([0.5, 1.0, 2.0], np.float32)
    assert targets_for(model, y, VALUES).shape == shape
    # What a source has made of a table is a column like the model's output.
    assert targets_for(model, y, replace(VALUES, own_targets=False)).shape == (3, 1)


def test_two_outputs_for_two_classes() -> None:
    two = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    two.compile("sgd", "sparse_categorical_crossentropy")
    found = signature_for(two, TWO)
    assert (found.task, found.num_outputs, found.class_names) == ("multiclass", 2, ("no", "yes"))
    assert targets_for(two, np.array([0, 1]), found).tolist() == [0, 1]
    assert signature_for(model_for(TWO), TWO) is TWO
    assert signature_for(OwnStep(), TWO) is TWO


def test_outputs_that_can_not_belong_to_the_task() -> None:
    check_output(np.zeros((8, 3)), THREE, "m:f")
    with pytest.raises(BuilderError, match=r"m:f puts out \(None, 4\), expected \(None, 3\)"):
        check_output(np.zeros((8, 4)), THREE, "m:f")
    with pytest.raises(BuilderError, match="puts out"):
        check_output([np.zeros((8, 3)), np.zeros((8, 3))], THREE, "m:f")
    with pytest.raises(BuilderError, match="a model with several outputs can't be searched"):
        check_output({"a": np.zeros((8, 3)), "b": np.zeros((8, 3))}, THREE, "m:f")
    with pytest.raises(BuilderError, match=r"set `data\.task: multiclass`"):
        check_output(np.zeros((8, 2)), TWO, "m:f")
