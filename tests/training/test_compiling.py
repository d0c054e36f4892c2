from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from hpo.data import DataSignature
from hpo.spec.models import Training
from hpo.training.compiling import (
    SettingError,
    Settings,
    class_weights,
    compile_model,
    has_logits,
    make_optimizer,
)
from hpo.training.targets import targets_for, wants_probabilities

pytestmark = pytest.mark.keras

SETTINGS = Settings(
    epochs=2,
    batch_size=32,
    optimizer="adam",
    learning_rate=0.25,
    momentum=0.5,
    weight_decay=0.0,
    label_smoothing=0.0,
)
THREE = DataSignature("multiclass", (4,), 3, 3, ("a", "b", "c"), (4, 1, 1), (2, 1, 1), "")
TWO = DataSignature("binary", (4,), 2, 1, ("no", "yes"), (4, 1, 1), (3, 1), "")
VALUES = DataSignature("regression", (4,), None, 2, None, (4, 1, 1), None, "")


def model_for(signature: DataSignature) -> Any:
    layers = [keras.Input((4,)), keras.layers.Dense(signature.num_outputs, "sigmoid")]
    return keras.Sequential(layers)


def compiled(signature: DataSignature, training: Any = None, **settings: Any) -> Any:
    model = model_for(signature)
    compile_model(model, replace(SETTINGS, **settings), Training(**(training or {})), signature)
    return model


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", keras.optimizers.SGD),
        ("rmsprop", keras.optimizers.RMSprop),
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.125])
def test_optimizers(name: str, kind: type, decay: float) -> None:
    optimizer = make_optimizer(replace(SETTINGS, optimizer=name, weight_decay=decay))
    assert type(optimizer) is kind
    assert float(optimizer.learning_rate) == 0.25
    assert (optimizer.weight_decay or 0.0) == decay
    if name in ("sgd", "rmsprop"):
        assert optimizer.momentum == 0.5


def test_an_optimizer_that_only_a_builder_offers() -> None:
    with pytest.raises(SettingError, match=r"expected one of sgd, adam, adamw, rmsprop, .*'lion'"):
        make_optimizer(replace(SETTINGS, optimizer="lion"))


@pytest.mark.parametrize(
    ("signature", "loss", "metrics"),
    [
        (THREE, "SparseCategoricalCrossentropy", ["accuracy"]),
        (TWO, "BinaryCrossentropy", ["accuracy"]),
        (VALUES, "MeanSquaredError", ["mae", "r2_score"]),
    ],
)
def test_loss_and_metrics_by_task(signature: DataSignature, loss: str, metrics: list[str]) -> None:
    model = compiled(signature)
    assert type(model.loss).__name__ == loss
    y = targets_for(model, np.zeros((5, 2)) if signature is VALUES else np.arange(5) % 2, signature)
    logs = model.evaluate(np.zeros((5, 4)), y, verbose=0, return_dict=True)
    assert sorted(logs) == sorted(["loss", *metrics])


def test_label_smoothing() -> None:
    for signature, training in (
        (TWO, {}),
        (THREE, {}),
        (THREE, {"loss": "CategoricalCrossentropy"}),
    ):
        loss = compiled(signature, training, label_smoothing=0.25).loss
        assert loss.label_smoothing == 0.25
    focal = compiled(THREE, {"loss": "categorical_focal_crossentropy"}, label_smoothing=0.25)
    assert type(focal.loss) is keras.losses.CategoricalFocalCrossentropy


def test_label_smoothing_that_would_change_nothing() -> None:
    with pytest.raises(SettingError, match=r"label_smoothing: it goes with .*received 'mse'"):
        compiled(THREE, {"loss": "mse"}, label_smoothing=0.1)
    with pytest.raises(SettingError, match=r"label_smoothing: .* the task is regression"):
        compiled(VALUES, label_smoothing=0.1)


@pytest.mark.parametrize("signature", [TWO, VALUES], ids=lambda signature: signature.task)
def test_losses_of_several_classes(signature: DataSignature) -> None:
    for loss in ("categorical_crossentropy", "SparseCategoricalCrossentropy"):
        with pytest.raises(SettingError, match=f"training.loss: .* task is {signature.task}; leav"):
            compiled(signature, {"loss": loss})
        compiled(THREE, {"loss": loss})


def test_names_that_keras_does_not_know() -> None:
    with pytest.raises(SettingError, match=r"training.loss: .* did you mean 'categorical_cross"):
        compiled(THREE, {"loss": "categorical_crosentropy"})
    with pytest.raises(SettingError, match=r"training.metrics: .*'recal'; did you mean"):
        compiled(TWO, {"metrics": ["accuracy", "recal"]})


@pytest.mark.parametrize("signature", [TWO, THREE], ids=lambda signature: signature.task)
def test_scores_by_name_are_those_of_scikit_learn(signature: DataSignature) -> None:
    """As Keras makes them from a name, F1 of one output would be the same whatever is predicted."""
    from sklearn import metrics

    model = compiled(signature, {"metrics": ["F1Score", "AUC", "accuracy"]})
    random = np.random.default_rng(3)
    x, y = random.normal(size=(60, 4)), random.integers(0, signature.num_classes, 60)
    found = model.evaluate(x, targets_for(model, y, signature), verbose=0, return_dict=True)
    outputs = model.predict(x, verbose=0)
    if signature.task == "binary":
        chosen, average, expected_auc = outputs[:, 0] > 0.5, "binary", (y, outputs[:, 0])
    else:
        chosen, average = outputs.argmax(axis=1), "macro"
        expected_auc = (np.eye(3)[y].ravel(), outputs.ravel())
    assert found["F1Score"] == pytest.approx(metrics.f1_score(y, chosen, average=average), abs=1e-5)
    # Keras takes 200 thresholds for the area.
    assert found["AUC"] == pytest.approx(metrics.roc_auc_score(*expected_auc), abs=0.02)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, chosen), abs=1e-5)


@pytest.mark.parametrize(
    ("loss", "logits", "probabilities"),
    [
        (keras.losses.SparseCategoricalCrossentropy(), False, True),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), True, False),
        ([keras.losses.SparseCategoricalCrossentropy(from_logits=True)], True, False),
        ({"head": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}, True, False),
        ("categorical_crossentropy", False, True),
        ("mse", False, False),
    ],
)
def test_whether_outputs_are_logits(loss: Any, logits: bool, probabilities: bool) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(inputs))
    model.compile("sgd", loss)
    assert (has_logits(model), wants_probabilities(model)) == (logits, probabilities)


def test_a_crossentropy_of_the_user_s_may_want_anything() -> None:
    def my_crossentropy(y: Any, logits: Any) -> Any:
        return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

    model = model_for(THREE)
    model.compile("sgd", my_crossentropy)
    assert not wants_probabilities(model)


def test_a_compiled_model_is_left_as_it_is() -> None:
    model = model_for(THREE)
    model.compile(optimizer := keras.optimizers.SGD(0.5), "hinge")
    compile_model(model, SETTINGS, Training(loss="mse"), THREE)
    assert (model.optimizer, model.loss) == (optimizer, "hinge")


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils import compute_class_weight

    y = np.array([0, 1, 0, 2])
    weights = class_weights(Training(class_weight="balanced"), y, THREE)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert weights is not None
    np.testing.assert_allclose(weights, expected[y], rtol=1e-6)


def test_class_weights_by_name() -> None:
    weights = class_weights(Training(class_weight={"yes": 3.0}), np.array([0, 1, 1]), TWO)
    assert weights is not None
    assert weights.tolist() == [1, 3, 3]
    assert class_weights(Training(), np.array([0]), TWO) is None


def test_class_weights_that_fit_no_class() -> None:
    with pytest.raises(SettingError, match="the data has no class maybe; its classes are no, yes"):
        class_weights(Training(class_weight={"maybe": 2.0}), np.array([0]), TWO)
    with pytest.raises(SettingError, match="the task is regression"):
        class_weights(Training(class_weight="balanced"), np.array([0.0]), VALUES)
