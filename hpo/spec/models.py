"""The study file as frozen values: what a study is, before anything runs.

Parsing happens once, at the edge (`hpo.spec.load_study_file`). Everything behind it receives a
`StudySpec` and trusts it. Field descriptions end up in the JSON Schema that editors show.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Scalar = bool | int | float | str
Direction = Literal["maximize", "minimize"]
Task = Literal["auto", "binary", "multiclass", "regression"]

# What `space:` may name without the builder asking for it: the trainer asks.
TRAINING_PARAMETERS = (
    "batch_size",
    "epochs",
    "label_smoothing",
    "learning_rate",
    "momentum",
    "optimizer",
    "weight_decay",
)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """Reads `90`, `90s`, `15m`, `2h` or `1h30m` as seconds."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.findall(value)
    if not parts or _DURATION.sub("", value).strip():
        raise ValueError("expected a duration such as 90s, 15m, 2h or 1h30m")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class Frozen(BaseModel):
    """A value that can't change and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SklearnSource(Frozen):
    """A data set that ships with scikit-learn."""

    type: Literal["sklearn"]
    name: Literal["breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine"] = Field(
        description="Which of scikit-learn's bundled sets to load."
    )


class NpzSource(Frozen):
    """Arrays in a NumPy .npz file."""

    type: Literal["npz"]
    path: str = Field(description="The file, relative to the project folder.")
    x: str = Field("x", description="Name of the array of features, one row a sample.")
    y: str = Field("y", description="Name of the array of targets, one row a sample.")


Source = Annotated[SklearnSource | NpzSource, Field(discriminator="type")]


class Split(Frozen):
    """One seeded split into train, validation and test."""

    validation: float = Field(0.2, gt=0, lt=1, description="Fraction of all rows.")
    test: float = Field(0.2, gt=0, lt=1, description="Fraction of all rows; never seen in search.")
    stratify: bool = Field(True, description="Keep the class shares in every part.")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation and test must leave rows to train on: their sum must be below 1, "
                f"received {self.validation + self.test:g}"
            )
        return self


class Preprocess(Frozen):
    """What is done to the features before the model sees them; fitted on train only."""

    normalize: Literal["none", "standard", "minmax"] = Field(
        "none",
        description="standard: zero mean, unit variance; minmax: 0 to 1; per feature or channel.",
    )
    reshape: tuple[int, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        description="Shape of one sample, such as [8, 8, 1]; it is applied before normalizing.",
    )


class DataSpec(Frozen):
    """Where the data comes from and how it is prepared."""

    source: Source
    task: Task = Field("auto", description="auto: read off the targets.")
    split: Split = Split()
    preprocess: Preprocess = Preprocess()


class ModelSpec(Frozen):
    """The builder, and arguments for it."""

    builder: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:name of a function or HyperModel, resolved from the project folder.",
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Passed by name.")


class Objective(Frozen):
    """The metric that the search improves; a trial's value is its best epoch's."""

    metric: str = Field(description="A name that Keras reports, such as val_accuracy.")
    direction: Direction


class EarlyStopping(Frozen):
    """Ends a trial when the objective stops improving."""

    patience: int = Field(ge=1, description="Epochs without improvement.")
    min_delta: float = Field(0.0, ge=0)
    start_epoch: int = Field(0, ge=0, description="Count from this epoch on.")


class CosineSchedule(Frozen):
    """Half a cosine from the learning rate down to `floor` of it over all epochs."""

    type: Literal["cosine"]
    warmup: int = Field(0, ge=0, description="Epochs of linear warm-up first.")
    floor: float = Field(0.0, ge=0, le=1)


class ExponentialSchedule(Frozen):
    """The learning rate times `decay` after every epoch."""

    type: Literal["exponential"]
    decay: float = Field(gt=0, le=1)


class StepSchedule(Frozen):
    """The learning rate times `factor` every `every` epochs."""

    type: Literal["step"]
    every: int = Field(ge=1)
    factor: float = Field(0.1, gt=0, lt=1)


class PlateauSchedule(Frozen):
    """The learning rate times `factor` when the objective has not improved for `patience` epochs."""

    type: Literal["plateau"]
    patience: int = Field(ge=1)
    factor: float = Field(0.5, gt=0, lt=1)
    min_delta: float = Field(0.0, ge=0)


Schedule = Annotated[
    CosineSchedule | ExponentialSchedule | StepSchedule | PlateauSchedule,
    Field(discriminator="type"),
]
OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]


class Training(Frozen):
    """How a model is trained. What stands in `space:` under the same name goes first."""

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    optimizer: OptimizerName = "adam"
    learning_rate: float = Field(0.001, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="For sgd and rmsprop.")
    weight_decay: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="For classification.")
    schedule: Schedule | None = None
    early_stopping: EarlyStopping | None = None
    class_weight: Literal["balanced"] | dict[str, float] | None = Field(
        None, description="balanced, or a weight for each class by its name."
    )
    loss: str | None = Field(None, description="A Keras loss; by task when left out.")
    metrics: tuple[str, ...] | None = Field(
        None, strict=False, description="Keras metrics; by task when left out."
    )
    seed: int = Field(0, ge=0)
    deterministic: bool = Field(
        False, description="Bit for bit the same on the same machine; may be slower."
    )


class _Sampled(Frozen):
    repeat: str | None = Field(
        None, description="Name of an integer: the parameter becomes name_0 .. name_{n-1}."
    )
    when: dict[str, Scalar | list[Scalar]] | None = Field(
        None, min_length=1, description="Sampled only while these parameters have these values."
    )


class FloatParameter(_Sampled):
    """A number between low and high, both included."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_a_range(self) -> FloatParameter:
        _check_range(self.low, self.high, self.log, self.step is not None)
        return self


class IntParameter(_Sampled):
    """A whole number between low and high, both included."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _is_a_range(self) -> IntParameter:
        _check_range(self.low, self.high, self.log, self.step != 1)
        return self


class CategoricalParameter(_Sampled):
    """One of the choices."""

    type: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _has_no_choice_twice(self) -> CategoricalParameter:
        seen = [(type(choice), choice) for choice in self.choices]
        twice = {str(choice) for kind, choice in seen if seen.count((kind, choice)) > 1}
        if twice:
            raise ValueError(f"choices must differ, received more than once: {', '.join(twice)}")
        return self


class BoolParameter(_Sampled):
    """True or false."""

    type: Literal["bool"]


Parameter = FloatParameter | IntParameter | CategoricalParameter | BoolParameter
SpaceEntry = Annotated[Parameter, Field(discriminator="type")] | Scalar


def _check_range(low: float, high: float, log: bool, stepped: bool) -> None:
    if low > high:
        raise ValueError(f"low must not be above high, received low {low:g} and high {high:g}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 on a log scale, received {low:g}")
    if log and stepped:
        raise ValueError("log and step can't be combined: leave one of them out")


SamplerName = Literal["tpe", "random", "grid", "brute_force", "qmc", "nsgaii", "nsgaiii", "cmaes"]
PrunerName = Literal[
    "none",
    "median",
    "percentile",
    "successive_halving",
    "hyperband",
    "threshold",
    "patient",
    "wilcoxon",
]


class Sampler(BaseModel):
    """An Optuna sampler and its options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    type: SamplerName

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Pruner(BaseModel):
    """An Optuna pruner and its options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    type: PrunerName

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class Retries(Frozen):
    """How often a trial is tried again before it counts as failed."""

    exception: int = Field(0, ge=0, description="After the builder or the training raised.")
    crash: int = Field(2, ge=0, description="After its trainer process died or ran out of time.")


def _by_name(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class Search(Frozen):
    """The budget and the strategy."""

    trials: int = Field(ge=1, description="The study ends with exactly so many finished trials.")
    sampler: Annotated[Sampler, BeforeValidator(_by_name, json_schema_input_type=SamplerName | Sampler)] = Sampler(type="tpe")
    pruner: Annotated[Pruner, BeforeValidator(_by_name, json_schema_input_type=PrunerName | Pruner)] = Pruner(type="none")
    timeout: Duration | None = Field(
        None, description="No trial begins after this time; seconds, or 90s, 15m, 2h."
    )
    trial_timeout: Duration | None = Field(
        None, description="A trial attempt that takes longer counts as crashed."
    )
    retries: Retries = Retries()
    max_consecutive_failures: int = Field(
        5, ge=1, description="So many equal failures in a row stop the study."
    )


class StudySpec(Frozen):
    """Everything that defines a study."""

    version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    data: DataSpec
    model: ModelSpec
    objective: Objective
    training: Training = Training()
    space: dict[str, SpaceEntry] = Field(default_factory=dict)
    search: Search

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal value."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> StudySpec:
        return cls.model_validate_json(text)

    @property
    def fingerprint(self) -> str:
        """Equal for two specs whose trials may stand in one study.

        The number of trials and the time limit are left out: a study may be extended.
        """
        content = self.model_dump(mode="json")
        for key in ("trials", "timeout"):
            content["search"].pop(key)
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
