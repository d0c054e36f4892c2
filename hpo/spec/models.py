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

from hpo.spec.checks import study_findings
from hpo.spec.data import (
    Column,
    ColumnKind,
    Cross,
    DataSpec,
    ImageLabels,
    ImagesSource,
    KerasSource,
    NpySource,
    NpzSource,
    Preprocess,
    PythonSource,
    SequencesSource,
    SklearnSource,
    Source,
    Split,
    TableSource,
    Task,
    TfRecordFeature,
    TfRecordSource,
)
from hpo.spec.messages import FindingsError
from hpo.spec.parameters import (
    Arguments,
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    Frozen,
    IntParameter,
    Parameter,
    Scalar,
    SpaceEntry,
)
from hpo.spec.training import (
    AUGMENT_PARAMETERS,
    TRAINING_PARAMETERS,
    Augment,
    CosineSchedule,
    EarlyStopping,
    ExponentialSchedule,
    OptimizerName,
    PlateauSchedule,
    Schedule,
    StepSchedule,
    Training,
)

__all__ = [
    "AUGMENT_PARAMETERS",
    "TRAINING_PARAMETERS",
    "Augment",
    "BoolParameter",
    "CategoricalParameter",
    "Column",
    "ColumnKind",
    "CosineSchedule",
    "Cross",
    "DataSpec",
    "Direction",
    "Duration",
    "EarlyStopping",
    "ExponentialSchedule",
    "FloatParameter",
    "Frozen",
    "ImageLabels",
    "ImagesSource",
    "IntParameter",
    "KerasSource",
    "ModelSpec",
    "NpySource",
    "NpzSource",
    "Objective",
    "OptimizerName",
    "Parameter",
    "PlateauSchedule",
    "Preprocess",
    "Pruner",
    "PrunerName",
    "PythonSource",
    "Retries",
    "Sampler",
    "SamplerName",
    "Scalar",
    "Schedule",
    "Search",
    "SequencesSource",
    "SklearnSource",
    "Source",
    "SpaceEntry",
    "Split",
    "StepSchedule",
    "StudySpec",
    "TableSource",
    "Task",
    "TfRecordFeature",
    "TfRecordSource",
    "Training",
]

Direction = Literal["maximize", "minimize"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """Reads `90`, `90s`, `15m`, `2h` or `1h30m` as seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    parts = _DURATION.findall(value) if isinstance(value, str) else []
    if not parts or _DURATION.sub("", str(value)).strip():
        raise ValueError("expected seconds, or a duration such as 90s, 15m, 2h or 1h30m")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


_DurationText = Annotated[str, Field(pattern=r"^(\s*\d+(\.\d+)?\s*[smhd])+\s*$")]
Duration = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(_seconds, json_schema_input_type=Annotated[float, Field(gt=0)] | _DurationText),
]


class ModelSpec(Frozen):
    """The builder, and arguments for it."""

    builder: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        json_schema_extra={"patternErrorMessage": "expected module:name such as models.mlp:MLP"},
        description="module:name of a function or HyperModel, resolved from the project folder.",
    )
    args: Arguments = Field(default_factory=dict, description="Passed to the builder by name.")


class Objective(Frozen):
    """The metric that the search improves; a trial's value is its best epoch's."""

    metric: str = Field(description="A name that Keras reports, such as val_accuracy.")
    direction: Direction = Field(description="Which way is better.")


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
    """Reads a plain name as a strategy without options."""
    if isinstance(value, str):
        return {"type": value}
    if not isinstance(value, dict | BaseModel):
        raise ValueError("expected a name, or a mapping with type and options")
    return value


class Search(Frozen):
    """The budget and the strategy."""

    trials: int = Field(ge=1, description="The study ends with exactly so many finished trials.")
    sampler: Annotated[
        Sampler, BeforeValidator(_by_name, json_schema_input_type=SamplerName | Sampler)
    ] = Field(Sampler(type="tpe"), description="What to try next: a name, or type and options.")
    pruner: Annotated[
        Pruner, BeforeValidator(_by_name, json_schema_input_type=PrunerName | Pruner)
    ] = Field(Pruner(type="none"), description="When to give up: a name, or type and options.")
    timeout: Duration | None = Field(
        None, description="No trial begins after this time; seconds, or 90s, 15m, 2h."
    )
    trial_timeout: Duration | None = Field(
        None, description="A trial attempt that takes longer counts as crashed."
    )
    retries: Retries = Field(Retries(), description="How often a trial is tried again.")
    max_consecutive_failures: int = Field(
        5, ge=1, description="So many equal failures in a row stop the study."
    )


class StudySpec(Frozen):
    """Everything that defines a study."""

    version: Literal[1] = Field(description="Version of this format.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        json_schema_extra={
            "patternErrorMessage": 'expected at most 100 letters, digits, ".", "_" or "-", '
            "beginning with a letter or a digit"
        },
        description="Name of the study in its database.",
    )
    data: DataSpec = Field(description="Where the data comes from and how it is prepared.")
    model: ModelSpec = Field(description="The builder, and arguments for it.")
    objective: Objective = Field(description="What the search improves.")
    training: Training = Field(Training(), description="How a model is trained.")
    space: dict[str, SpaceEntry] = Field(
        default_factory=dict,
        json_schema_extra={"propertyNames": {"minLength": 1, "maxLength": 400}},
        description="Narrows, fixes or adds to the hyperparameters that the builder declares.",
    )
    search: Search = Field(description="The budget and the strategy.")

    @model_validator(mode="after")
    def _is_consistent(self) -> StudySpec:
        findings = study_findings(self.training, self.space)
        if findings:
            raise FindingsError(findings)
        return self

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
