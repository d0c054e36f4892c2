"""From a model and numbers to a model that can train: optimizer, loss and metrics by task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import ModuleType
from typing import Any, get_args

import keras
import numpy as np
from keras.src.models.functional import Functional
from numpy.typing import NDArray

from hpo.data import DataSignature
from hpo.errors import UsageError
from hpo.space import Values
from hpo.spec.models import (
    AUGMENT_PARAMETERS,
    TRAINING_PARAMETERS,
    Augment,
    OptimizerName,
    Scalar,
    Training,
)
from hpo.spec.training import by_class, training_field, training_value

# What a model that its builder has compiled takes out of the trainer's hands.
COMPILED_IN = ("label_smoothing", "learning_rate", "momentum", "optimizer", "weight_decay")

# Metrics that compare a column a class; they can't be reckoned from class numbers.
_OF_COLUMNS = (
    keras.metrics.AUC,
    keras.metrics.FBetaScore,
    keras.metrics.Precision,
    keras.metrics.Recall,
)
# Losses of several classes, of which each row has one.
_OF_CLASSES = (
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.categorical_hinge,
    keras.losses.sparse_categorical_crossentropy,
)
_SMOOTHED = (
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
)


class SettingError(UsageError):
    """An entry of the study file's `training:` can't be used; `entry` is its key there.

    One in `training.augment` is written `augment.rotation`.
    """

    def __init__(self, entry: str, message: str) -> None:
        self.entry = entry
        self.message = message
        super().__init__(f"training.{entry}: {message}")


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
    augment: Augment = field(default_factory=Augment)


def training_defaults(training: Training) -> dict[str, Scalar]:
    """What the study file's `training:` says for each of the trainer's own parameters."""
    return {name: training_value(training, name) for name in TRAINING_PARAMETERS}


def settle(values: Values, training: Training) -> Settings:
    """Asks for the parameters that the trainer itself needs, in a fixed order."""
    names = [name for name in Settings.__dataclass_fields__ if name != "augment"]
    asked = {name: values.training(name) for name in names}
    return Settings(**asked, augment=_augment(values, training))


def _augment(values: Values, training: Training) -> Augment:
    """Asks only for what stands in the space and is not the builder's own by that name."""
    ours = [
        name for name in AUGMENT_PARAMETERS if values.adds(name) and name not in values.declared
    ]
    asked = {training_field(name)[1]: values.training(name) for name in ours}
    return training.augment.model_copy(update=asked)


def compile_model(
    model: keras.Model,
    settings: Settings,
    training: Training,
    signature: DataSignature,
    *,
    logits: bool = False,
) -> None:
    """Compiles an uncompiled model; one that its builder compiled is left as it is.

    Args:
        logits: Whether it puts out logits; a loss that the study file names has probabilities.

    Raises:
        SettingError: Keras does not know the optimizer, the loss or a metric.
    """
    if model.compiled:
        return
    # Keras looks names up when the first batch arrives; look now, for a clear message.
    metrics = {name: _look_up("metrics", name, keras.metrics) for name in training.metrics or ()}
    columns = any(isinstance(metric, _OF_COLUMNS) for metric in metrics.values())
    model.compile(
        optimizer=make_optimizer(settings),
        loss=_loss(training.loss, signature, settings.label_smoothing, columns, logits),
        metrics=[_metric(*each, signature) for each in metrics.items()]
        or _metrics(signature, logits),
    )


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
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(**common)
    # The study file's choices are checked; a builder may declare others.
    known = ", ".join(get_args(OptimizerName))
    raise SettingError("optimizer", f"expected one of {known}, received {settings.optimizer!r}")


def own_optimizer(model: keras.Model) -> keras.Optimizer:
    """The one that the model was compiled with, which mixed precision wraps."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def base_rate(model: keras.Model) -> float | None:
    """The learning rate, or None when the builder's own schedule drives it."""
    optimizer = own_optimizer(model)
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return None
    return float(optimizer.learning_rate)


def _loss(
    name: str | None, signature: DataSignature, smoothing: float, columns: bool, logits: bool
) -> Any:
    """The loss by its name or by the task; with `columns` one that compares a column a class."""
    if smoothing and signature.task == "regression":
        raise SettingError("label_smoothing", "it smooths classes, but the task is regression")
    if name is not None:
        return _named_loss(name, signature, smoothing)
    if signature.task in ("binary", "multilabel"):
        return keras.losses.BinaryCrossentropy(logits, smoothing)
    if signature.task == "regression":
        return keras.losses.MeanSquaredError()
    if smoothing or columns:
        return keras.losses.CategoricalCrossentropy(logits, smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def _named_loss(name: str, signature: DataSignature, smoothing: float) -> Any:
    loss = _look_up("loss", name, keras.losses)
    if _function(loss) in _OF_CLASSES and signature.task != "multiclass":
        # Of a single output it would be 0 whatever the model does.
        raise SettingError(
            "loss",
            f"{name!r} compares an output a class, but the task is {signature.task}; leave loss "
            "out for that task's own, or set `data.task: multiclass`",
        )
    if not smoothing:
        return loss
    for kind in _SMOOTHED:
        if _function(loss) is kind().fn:
            return kind(label_smoothing=smoothing)
    known = ", ".join(kind().name for kind in _SMOOTHED)
    raise SettingError(
        "label_smoothing", f"it goes with one of the losses {known}, received {name!r}"
    )


def _look_up(entry: str, name: str, module: ModuleType) -> Any:
    try:
        return module.get(name)
    except (ValueError, TypeError):
        near = get_close_matches(name, dir(module), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingError(entry, f"Keras knows no {name!r}{hint}") from None


def _function(loss: Any) -> Any:
    """The function inside one of Keras's losses; anything else as it is."""
    return getattr(loss, "fn", loss)


def _metric(name: str, metric: Any, signature: DataSignature) -> Any:
    """A metric of the study file, as it is of use for the task.

    As they come, F1Score and FBetaScore take every row of a single output for positive, and of
    several outputs they make no single number.
    """
    if not isinstance(metric, keras.metrics.FBetaScore):
        return name
    threshold = None if signature.task == "multiclass" else 0.5
    return type(metric)(average="macro", threshold=threshold, name=name)


def _metrics(signature: DataSignature, logits: bool) -> list[Any]:
    if signature.task == "regression":
        return ["mae", keras.metrics.R2Score(name="r2_score")]
    if signature.task == "multilabel":
        labels = signature.num_outputs
        return [
            keras.metrics.BinaryAccuracy(threshold=0.0 if logits else 0.5),
            keras.metrics.AUC(name="auc", multi_label=True, num_labels=labels, from_logits=logits),
        ]
    if logits and signature.task == "binary":
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    return ["accuracy"]


def only_loss(model: keras.Model) -> Any:
    """The model's only loss as it was compiled with it, None when it has none or several."""
    loss = model.loss
    if isinstance(loss, dict):
        loss = list(loss.values())
    if isinstance(loss, list | tuple):
        loss = loss[0] if len(loss) == 1 else None
    return loss


def loss_of(model: keras.Model) -> Callable[..., Any] | None:
    """The function of the model's only loss, None when it has none or several."""
    function: Callable[..., Any] | None = _function(keras.losses.get(only_loss(model)))
    return function


def ends_in_logits(model: keras.Model) -> bool:
    """Whether a functional model's only output comes from a layer without an activation."""
    if type(model) not in (Functional, keras.Sequential) or not model.built:
        return False
    heads = [output._keras_history.operation for output in model.outputs]
    return len(heads) == 1 and (getattr(heads[0], "activation", None) is keras.activations.linear)


def has_logits(model: keras.Model) -> bool:
    """Whether the model is trained to put out logits."""
    return bool(getattr(only_loss(model), "from_logits", False))


def is_of_keras(function: Any) -> bool:
    """Whether a loss is one of Keras's own."""
    return str(getattr(function, "__module__", "")).startswith("keras.")


def class_weights(
    training: Training, y: NDArray[Any], signature: DataSignature
) -> NDArray[np.float32] | None:
    """A weight for each row of train, or None. `balanced` is rows / (classes * rows of class)."""
    if training.class_weight is None:
        return None
    if signature.task not in ("binary", "multiclass"):
        raise SettingError("class_weight", f"it weighs classes, but the task is {signature.task}")
    assert signature.class_names is not None
    assert signature.class_counts is not None
    names = signature.class_names
    if training.class_weight == "balanced":
        counts = np.maximum(np.asarray(signature.class_counts, np.float64), 1)
        weights = len(y) / (len(counts) * counts)
    else:
        given = by_class(training.class_weight, names)
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise SettingError(
                "class_weight",
                f"the data has no class {', '.join(unknown)}; its classes are {', '.join(names)}",
            )
        weights = np.asarray([given.get(name, 1.0) for name in names])
        if not weights.any():
            raise SettingError("class_weight", "no class counts; expected a weight above 0")
    return np.asarray(weights[y], np.float32)
