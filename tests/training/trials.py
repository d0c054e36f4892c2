"""What tests of the trainer share: a small user's project, study specs and a channel in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.spec import StudySpec
from hpo.spec.models import BoolParameter, CategoricalParameter, Parameter, Scalar
from hpo.training.channel import Begun

if TYPE_CHECKING:
    from hpo.training.bench import Bench

BUILDERS = """
import keras
import tensorflow as tf


def dense(hp, input_shape, num_outputs, task):
    head = {"binary": "sigmoid", "multiclass": "softmax", "regression": "linear"}[task]
    layers = [keras.Input(input_shape), keras.layers.Dense(hp.Int("units", 4, 64), "relu")]
    if hp.Boolean("batchnorm"):
        layers.append(keras.layers.BatchNormalization())
    dropout = hp.Float("dropout", 0.0, 0.5)
    if dropout:
        layers.append(keras.layers.Dropout(dropout))
    return keras.Sequential([*layers, keras.layers.Dense(num_outputs, head)])


def compiled(hp, input_shape, num_outputs):
    model = keras.Sequential([keras.Input(input_shape), keras.layers.Dense(num_outputs)])
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=1, decay_rate=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


def half(hp, input_shape, num_outputs):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Dense(hp.Int("units", 4, 64), "relu", dtype="bfloat16"),
        keras.layers.Dense(num_outputs, "softmax", dtype="bfloat16"),
    ])


class TwoOptimizers(keras.Model):
    def __init__(self, units, num_outputs):
        super().__init__()
        self.body = keras.layers.Dense(units, "relu")
        self.head = keras.layers.Dense(num_outputs, "softmax")

    def call(self, x):
        return self.head(self.body(x))

    def compile(self, body_optimizer, head_optimizer):
        super().compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        self.body_optimizer, self.others = body_optimizer, {"head": head_optimizer}

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x, y, predicted)
        pairs = (self.body_optimizer, self.body), (self.others["head"], self.head)
        for optimizer, part in pairs:
            weights = part.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return self.compute_metrics(x, y, predicted)


def two_optimizers(hp, num_outputs):
    model = TwoOptimizers(16, num_outputs)
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.003))
    return model


def averaging(hp, input_shape, num_outputs):
    layers = keras.layers.Dense(16, "relu"), keras.layers.Dense(num_outputs, "softmax")
    model = keras.Sequential([keras.Input(input_shape), *layers])
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@tf.custom_gradient
def doubled(x):
    return 2 * x, lambda upstream: 2 * upstream


@tf.function
def traced_once(x):
    return doubled(x) + doubled(-x) / 2


def traced(hp, input_shape, num_outputs):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Lambda(traced_once, output_shape=input_shape)(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, "softmax")(x))
"""

MIXED = """
import keras
import tiny
from tiny import dense

keras.mixed_precision.set_global_policy("mixed_float16")


def build64(hp, input_shape, num_outputs, task):
    # For this trial alone.
    policy = keras.config.dtype_policy().name
    keras.config.set_dtype_policy("float64")
    model = dense(hp, input_shape, num_outputs, task)
    model.name = policy
    return model


def build(hp, input_shape, num_outputs, task):
    return dense(hp, input_shape, num_outputs, task)


def averaging(hp, input_shape, num_outputs):
    return tiny.averaging(hp, input_shape, num_outputs)
"""


def make_spec(**sections: Any) -> StudySpec:
    """A study of scikit-learn's digits with the builder `dense`; keywords replace sections."""
    values: dict[str, Any] = {
        "version": 1,
        "name": "trials",
        "data": {
            "source": {"type": "sklearn", "name": "digits"},
            "preprocess": {"normalize": "standard"},
        },
        "model": {"builder": "tiny:dense"},
        "objective": {"metric": "val_accuracy", "direction": "maximize"},
        "training": {"epochs": 3, "batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1},
        "space": {"units": 16, "dropout": 0.0, "batchnorm": False},
        "search": {"trials": 1},
    }
    return StudySpec.model_validate({**values, **sections})


class KilledError(BaseException):
    """Stands for the end of a trainer process."""


@dataclass
class MemoryChannel:
    """Answers a trial out of memory.

    Attributes:
        values: Suggestions by name; the lowest value for a name that is missing.
        prune_at: The epoch whose report is answered with a prune.
        die_before, die_after: The trainer dies before or after the report of this epoch arrives.
    """

    values: Mapping[str, Scalar] = field(default_factory=dict)
    prune_at: int = 0
    die_before: int = 0
    die_after: int = 0
    suggested: dict[str, Parameter] = field(default_factory=dict)
    begun: list[Begun] = field(default_factory=list)
    reports: dict[int, float] = field(default_factory=dict)

    def suggest(self, name: str, parameter: Parameter) -> Scalar:
        self.suggested[name] = parameter
        return self.values[name] if name in self.values else lowest(parameter)

    def begin(self, begun: Begun) -> None:
        self.begun.append(begun)

    def report(self, epoch: int, value: float) -> bool:
        if epoch == self.die_before:
            raise KilledError
        assert epoch not in self.reports
        self.reports[epoch] = value
        if epoch == self.die_after:
            raise KilledError
        return epoch == self.prune_at


def lowest(parameter: Parameter) -> Scalar:
    if isinstance(parameter, BoolParameter):
        return False
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices[0]
    return parameter.low


def with_builder(bench: Bench, name: str, project: Path) -> Bench:
    """The bench with another builder of the project's."""
    from hpo.training.builder import load_builder

    spec = bench.spec.model_copy(update={"model": make_spec(model={"builder": name}).model})
    builder = load_builder(spec.model, bench.data.signature, project)
    return replace(bench, spec=spec, builder=builder)
