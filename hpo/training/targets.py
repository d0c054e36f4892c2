"""Targets in the form that a model takes them, and what it must put out for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional
from numpy.typing import NDArray

from hpo.data import DataSignature
from hpo.errors import BuilderError
from hpo.training.compiling import has_logits, is_of_keras, loss_of

# Where a model's own class may look at the targets.
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def signature_for(model: keras.Model, signature: DataSignature) -> DataSignature:
    """The data's signature as the model takes it: one of two outputs takes two classes as several.

    Of a model that is built only when it is called nobody can say so before.
    """
    known = type(model) in (Functional, keras.Sequential) and model.built
    if signature.task == "binary" and known and model.output_shape == (None, 2):
        return replace(signature, task="multiclass", num_outputs=2)
    return signature


def target_form(model: keras.Model, signature: DataSignature) -> str:
    """How `targets_for` gives the targets to this model, in a word."""
    if signature.task == "multiclass" and wants_one_hot(model):
        return "one-hot"
    if signature.own_targets and has_own_code(model):
        return "as given"
    return "classes" if signature.task == "multiclass" else "columns"


def targets_for(model: keras.Model, y: NDArray[Any], signature: DataSignature) -> NDArray[Any]:
    """Targets as the model's loss, metrics and steps want them.

    Returns float32 (rows, classes) for one-hot losses. A model with code of the user's in these
    gets the shape that `given_targets` makes, others class numbers (rows,) for multiclass and
    otherwise (rows, outputs). All are float32 but class numbers of multiclass.
    """
    form = target_form(model, signature)
    if form == "one-hot":
        return one_hot(y, signature)
    if form == "classes":
        return y
    targets = given_targets(y, signature) if form == "as given" else y.reshape(len(y), -1)
    return targets if signature.task == "multiclass" else targets.astype(np.float32, copy=False)


def given_targets(y: NDArray[Any], signature: DataSignature) -> NDArray[Any]:
    """Targets of the shape that the data has them in, which a `fit` of the user's is written for.

    Between (rows,) and (rows, 1) NumPy and TensorFlow see no error, but a table of all pairs.
    """
    if signature.task not in ("binary", "multiclass"):
        return y
    shape = signature.target_shape
    if shape in ((), (1,)):
        return y.reshape(len(y), *shape)
    return one_hot(y, signature)


def one_hot(y: NDArray[Any], signature: DataSignature) -> NDArray[Any]:
    return np.asarray(keras.utils.to_categorical(y, signature.num_classes), np.float32)


def wants_one_hot(model: keras.Model) -> bool:
    """Whether the model's loss compares with one column a class instead of a class number.

    Of Keras's own losses only the sparse one takes class numbers; a loss of the user's own gets
    what the data has, and so does a `train_step` without a loss.
    """
    loss = loss_of(model)
    return is_of_keras(loss) and loss is not keras.losses.sparse_categorical_crossentropy


def wants_probabilities(model: keras.Model) -> bool:
    """Whether the model's loss is Keras's crossentropy of probabilities, not of logits."""
    loss = loss_of(model)
    is_crossentropy = "crossentropy" in str(getattr(loss, "__name__", ""))
    return is_crossentropy and is_of_keras(loss) and not has_logits(model)


def has_own_code(model: keras.Model) -> bool:
    """Whether code that is not Keras's looks at the targets: a step, a loss or a metric."""
    own = any(getattr(type(model), name) is not getattr(keras.Model, name) for name in _STEPS)
    return own or not all(map(_is_one_of_keras, _compiled_with(model)))


def _compiled_with(model: keras.Model) -> list[Any]:
    """The losses and metrics of a model: names, functions, objects."""
    loss = getattr(model, "_compile_loss", None)
    metrics = getattr(model, "_compile_metrics", None)
    given = (
        getattr(loss, "_user_loss", None),
        getattr(metrics, "_user_metrics", None),
        getattr(metrics, "_user_weighted_metrics", None),
    )
    return [each for each in keras.tree.flatten(given) if each is not None]


def _is_one_of_keras(judge: Any) -> bool:
    if isinstance(judge, str):
        return True
    if not isinstance(judge, keras.losses.Loss | keras.metrics.Metric):
        return is_of_keras(judge)
    function = getattr(judge, "fn", getattr(judge, "_fn", None))
    return is_of_keras(type(judge)) and (function is None or is_of_keras(function))


def check_output(outputs: Any, signature: DataSignature, builder: str) -> None:
    """Raises BuilderError when a model's output for some rows can't belong to the task."""
    shapes = keras.tree.map_structure(lambda output: (None, *output.shape[1:]), outputs)
    expected = (None, signature.num_outputs)
    if shapes == expected:
        return
    advice = ""
    if signature.task == "binary" and shapes == (None, 2):
        advice = "; for an output a class set `data.task: multiclass`"
    elif isinstance(shapes, list | dict):
        advice = "; a model with several outputs can't be searched"
    raise BuilderError(
        f"the model of {builder} puts out {shapes}, expected {expected} for a "
        f"{signature.task} task with {signature.num_outputs} outputs{advice}"
    )
