"""From a model and numbers to a model that can train: optimizer, loss and metrics by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hpo.data import DataSignature
from hpo.errors import BuilderError, UsageError
from hpo.space import Values
from hpo.spec.models import TRAINING_PARAMETERS, Scalar, Training

_ONE_HOT_LOSSES = ("categorical_crossentropy", "categorical_focal_crossentropy")


@dataclass(frozen=True)
class Settings:
    """The trainer's own parameters of one trial, after the space has had its say."""

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    label_smoothing: float


def training_defaults(training: Training) -> dict[str, Scalar]:
    """What the study file's `training:` says for each of the trainer's own parameters."""
    return {name: getattr(training, name) for name in TRAINING_PARAMETERS}


def settle(values: Values) -> Settings:
    """Asks for the parameters that the trainer itself needs, in a fixed order."""
    return Settings(**{name: values.training(name) for name in Settings.__dataclass_fields__})


def compile_model(
    model: keras.Model, settings: Settings, training: Training, signature: DataSignature
) -> None:
    """Compiles an uncompiled model; one that its builder compiled is left as it is.

    Raises:
        UsageError: Keras does not know the loss or a metric of the study file.
    """
    if model.compiled:
        return
    try:
        model.compile(
            optimizer=make_optimizer(settings),
            loss=training.loss or _loss(signature, settings),
            metrics=list(training.metrics) if training.metrics else _metrics(signature),
        )
        # Keras looks names up when the first batch arrives; look now, for a clear message.
        for metric in training.metrics or ():
            keras.metrics.get(metric)
    except (ValueError, TypeError) as error:
        raise UsageError(f"training: Keras does not accept the loss or a metric: {error}") from None


def make_optimizer(settings: Settings) -> keras.Optimizer:
    """The optimizer by its name; Keras's defaults for what the settings do not say."""
    common: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay or None,
    }
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(momentum=settings.momentum, **common)
    if settings.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(momentum=settings.momentum, **common)
    if settings.optimizer == "adamw":
        return keras.optimizers.AdamW(**(common | {"weight_decay": settings.weight_decay}))
    return keras.optimizers.Adam(**common)


def _loss(signature: DataSignature, settings: Settings) -> Any:
    smoothing = settings.label_smoothing
    if signature.task == "binary":
        return keras.losses.BinaryCrossentropy(label_smoothing=smoothing)
    if signature.task == "regression":
        return keras.losses.MeanSquaredError()
    if smoothing:
        return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    return keras.losses.SparseCategoricalCrossentropy()


def _metrics(signature: DataSignature) -> list[Any]:
    if signature.task == "regression":
        return ["mae", keras.metrics.R2Score(name="r2_score")]
    return ["accuracy"]


def wants_one_hot(model: keras.Model) -> bool:
    """Whether the model's loss compares with one column a class instead of a class number."""
    loss = model.loss
    if isinstance(loss, str):
        return loss in _ONE_HOT_LOSSES
    kinds = (keras.losses.CategoricalCrossentropy, keras.losses.CategoricalFocalCrossentropy)
    return isinstance(loss, kinds)


def targets_for(model: keras.Model, y: NDArray[Any], signature: DataSignature) -> NDArray[Any]:
    """Targets as the model's loss wants them.

    Returns float32 (rows, outputs) for binary, regression and one-hot losses, otherwise the class
    numbers (rows,).
    """
    if signature.task == "multiclass":
        if not wants_one_hot(model):
            return y
        return np.asarray(keras.utils.to_categorical(y, signature.num_classes), np.float32)
    return y.reshape(len(y), -1).astype(np.float32)


def class_weights(
    training: Training, y: NDArray[Any], signature: DataSignature
) -> NDArray[np.float32] | None:
    """A weight for each row of train, or None. `balanced` is rows / (classes * rows of class)."""
    if training.class_weight is None:
        return None
    if signature.class_names is None or signature.class_counts is None:
        raise UsageError("training.class_weight: it weighs classes, but the task is regression")
    names = signature.class_names
    if training.class_weight == "balanced":
        counts = np.maximum(np.asarray(signature.class_counts, np.float64), 1)
        weights = len(y) / (len(counts) * counts)
    else:
        unknown = sorted(set(training.class_weight) - set(names))
        if unknown:
            raise UsageError(
                f"training.class_weight: the data has no class {', '.join(unknown)}; "
                f"its classes are {', '.join(names)}"
            )
        weights = np.asarray([training.class_weight.get(name, 1.0) for name in names])
    return np.asarray(weights[y], np.float32)


def check_output(model: keras.Model, signature: DataSignature, builder: str) -> None:
    """Raises BuilderError when the model's output can't belong to the task."""
    shape = tuple(model.output_shape)
    expected = (None, signature.num_outputs)
    if shape != expected:
        raise BuilderError(
            f"the model of {builder} puts out {shape}, expected {expected} for a "
            f"{signature.task} task with {signature.num_outputs} outputs"
        )
