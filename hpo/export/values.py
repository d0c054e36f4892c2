"""What goes into an export and what comes out. No Keras here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpo.artifacts import Place
from hpo.spec import StudySpec
from hpo.spec.models import Scalar


@dataclass(frozen=True)
class ExportTask:
    """What to export and where to.

    Attributes:
        params: The trial's hyperparameters by name.
        value: The trial's value in the search, which the export must find again.
        checkpoint: File with the weights of the trial's best epoch.
        data: Fingerprint of the data that was searched on.
    """

    spec: StudySpec
    project: Path
    number: int
    params: dict[str, Scalar]
    value: float
    seed: int
    checkpoint: Place
    folder: Path
    data: str


@dataclass(frozen=True)
class Bundle:
    """A written bundle and the figures in it."""

    folder: Path
    validation: dict[str, float]
    test: dict[str, float]
