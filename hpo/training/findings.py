"""What the check of a study finds out. No Keras here: whoever submits a study reads it."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.data import DataSignature
from hpo.spec.models import Parameter


@dataclass(frozen=True)
class StudyProblem:
    """What is wrong, and the key path in the study file that it belongs to."""

    path: tuple[str | int, ...]
    message: str


@dataclass(frozen=True)
class Preflight:
    """What was found out about a study.

    Attributes:
        parameters: The builder's declarations by name, as far as the probes met them.
        metrics: The names that each epoch will report.
        warnings: What a person should look at; the study can be run all the same.
    """

    signature: DataSignature
    builder_hash: str
    optuna_major: str
    keras_major: str
    parameters: dict[str, Parameter]
    metrics: tuple[str, ...]
    problems: tuple[StudyProblem, ...]
    warnings: tuple[str, ...] = ()
