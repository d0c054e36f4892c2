"""The section `training:` of a study file: how a model is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import Field

from hpo.spec.parameters import Frozen, Scalar

_Weight = Annotated[float, Field(ge=0)]

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]


class EarlyStopping(Frozen):
    """Ends a trial when the objective stops improving."""

    patience: int = Field(ge=1, description="Epochs without improvement before the trial ends.")
    min_delta: float = Field(0.0, ge=0, description="A smaller change is no improvement.")
    start_epoch: int = Field(0, ge=0, description="The first so many epochs do not count.")


class CosineSchedule(Frozen):
    """Half a cosine from the learning rate down to `floor` of it over all epochs."""

    type: Literal["cosine"]
    warmup: int = Field(0, ge=0, description="Epochs of linear warm-up first.")
    floor: float = Field(
        0.0, ge=0, le=1, description="Share of the learning rate that is left at the end."
    )


class ExponentialSchedule(Frozen):
    """The learning rate times `decay` after every epoch."""

    type: Literal["exponential"]
    decay: float = Field(gt=0, le=1, description="Factor after each epoch.")


class StepSchedule(Frozen):
    """The learning rate times `factor` every `every` epochs."""

    type: Literal["step"]
    every: int = Field(ge=1, description="Epochs from one step to the next.")
    factor: float = Field(0.1, gt=0, lt=1, description="Factor at each step.")


class PlateauSchedule(Frozen):
    """The learning rate times `factor` after `patience` epochs without a better objective."""

    type: Literal["plateau"]
    patience: int = Field(ge=1, description="Epochs without improvement before a step.")
    factor: float = Field(0.5, gt=0, lt=1, description="Factor at each step.")
    min_delta: float = Field(0.0, ge=0, description="A smaller change is no improvement.")


Schedule = Annotated[
    CosineSchedule | ExponentialSchedule | StepSchedule | PlateauSchedule,
    Field(discriminator="type"),
]


class Augment(Frozen):
    """Random changes of the training rows, others in each epoch; never in evaluation."""

    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="For pictures: mirrored or not, at random."
    )
    rotation: float = Field(
        0.0, ge=0, le=0.5, description="For pictures: at most so much of a full turn, either way."
    )
    zoom: float = Field(
        0.0, ge=0, lt=1, description="For pictures: at most so much smaller or larger."
    )
    translation: float = Field(
        0.0, ge=0, lt=1, description="For pictures: moved by at most so much of height and width."
    )
    contrast: float = Field(
        0.0, ge=0, lt=1, description="For pictures: contrast at most so much lower or higher."
    )
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of Gaussian noise on the prepared features."
    )
    feature_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the prepared features that are set to 0."
    )


class Training(Frozen):
    """How a model is trained. What stands in `space:` under the same name goes first."""

    epochs: int = Field(20, ge=1, description="Passes over the training rows, at most.")
    batch_size: int = Field(32, ge=1, description="Rows in one step.")
    optimizer: OptimizerName = Field("adam", description="The Keras optimizer.")
    learning_rate: float = Field(0.001, gt=0, description="Where the schedule begins.")
    momentum: float = Field(0.0, ge=0, lt=1, description="For sgd and rmsprop.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="For classification.")
    schedule: Schedule | None = Field(
        None, description="How the learning rate changes; constant when left out."
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Ends a trial that no longer improves; never when left out."
    )
    class_weight: Literal["balanced"] | dict[str, _Weight] | None = Field(
        None, description="balanced, or a weight for each class by its name."
    )
    augment: Augment = Field(
        Augment(), description="Random changes of the training rows; none when left out."
    )
    loss: str | None = Field(None, description="A Keras loss; by task when left out.")
    metrics: tuple[str, ...] | None = Field(
        None, strict=False, description="Keras metrics; by task when left out."
    )
    seed: int = Field(0, ge=0, description="Trial seeds are derived from it.")
    deterministic: bool = Field(
        False, description="Bit for bit the same on the same machine; may be slower."
    )


# Entries of `augment:` in `space:`.
AUGMENT_PARAMETERS = tuple(f"augment_{key}" for key in Augment.model_fields)

# What `space:` may name without the builder asking for it: the trainer asks.
TRAINING_PARAMETERS = (
    "batch_size",
    "epochs",
    "label_smoothing",
    "learning_rate",
    "momentum",
    "optimizer",
    "weight_decay",
    *AUGMENT_PARAMETERS,
)


def training_field(name: str) -> tuple[type[Frozen], str]:
    """The section and the key in it that one of the TRAINING_PARAMETERS stands for."""
    if name in AUGMENT_PARAMETERS:
        return Augment, name.removeprefix("augment_")
    return Training, name


def training_value(training: Training, name: str) -> Scalar:
    """What `training:` says for one of the TRAINING_PARAMETERS."""
    section, key = training_field(name)
    value: Scalar = getattr(training.augment if section is Augment else training, key)
    return value


def by_class(weights: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """Weights by the names of classes: YAML's true and false are the classes True and False."""
    truths = {str(truth).lower(): str(truth) for truth in (True, False) if str(truth) in names}
    return {name if name in names else truths.get(name, name): weights[name] for name in weights}
