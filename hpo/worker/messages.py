"""What worker and trainer say to each other over their pipe: frozen values only.

::

    worker                    trainer
      Prepare      ->
                   <-         Ready, or Refused
      TrialTask    ->
                   <-         Suggest ...      each answered by Suggested or Rejected
                   <-         Begun
                   <-         Report ...       each answered by Answer
                   <-         Finished, Failed, or Refused
      Call         ->
                   <-         Doing ...
                   <-         Returned, or Refused
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo import errors
from hpo.artifacts import Place
from hpo.errors import HpoError
from hpo.spec.models import Parameter, Scalar
from hpo.training.channel import Attachment, Begun, TrialTask

__all__ = [
    "Answer",
    "Attachment",
    "Begun",
    "Call",
    "Doing",
    "Failed",
    "Finished",
    "Prepare",
    "Ready",
    "Refused",
    "Rejected",
    "Report",
    "Returned",
    "Suggest",
    "Suggested",
    "TrialTask",
]


@dataclass(frozen=True)
class Prepare:
    """Open data and builder of a study.

    Attributes:
        threads: This trainer's share of the cores.
        shared: Folder in which the trainers of this machine share data and graphs.
        fingerprint: Of the study's data, which may lie there.
    """

    spec_json: str
    project: Path
    threads: int
    shared: Path | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Ready:
    """The trainer can run trials; what it found must equal the study's facts."""

    data: str
    builder: str
    keras: str


@dataclass(frozen=True)
class Refused:
    """An HpoError, by the name of its class, as nothing else may cross the pipe."""

    error: str
    message: str

    def as_error(self) -> HpoError:
        error: HpoError = getattr(errors, self.error, HpoError)(self.message)
        return error


@dataclass(frozen=True)
class Suggest:
    """The builder asks for a parameter."""

    name: str
    parameter: Parameter


@dataclass(frozen=True)
class Suggested:
    value: Scalar


@dataclass(frozen=True)
class Rejected:
    """The study can't take the parameter as the builder declares it; the trial has failed."""

    message: str


@dataclass(frozen=True)
class Report:
    """An epoch (from 1) has ended with this value of the objective."""

    epoch: int
    value: float


@dataclass(frozen=True)
class Answer:
    prune: bool


@dataclass(frozen=True)
class Finished:
    """Training has ended.

    Attributes:
        diverged: What became NaN or infinite, and when.
        epochs: Epochs run in all, those of earlier leases included.
        best_epoch: From 1; like `value` and `checkpoint` None when no epoch has ended.
        value: The best epoch's, which is the one of the model in `checkpoint`.
        seconds: Time spent training them.
        checkpoint: File of the best epoch.
        files: To be shown with the trial.
    """

    pruned: bool
    diverged: str | None
    epochs: int
    best_epoch: int | None
    value: float | None
    seconds: float
    checkpoint: Place | None
    files: tuple[Attachment, ...]


@dataclass(frozen=True)
class Failed:
    """Builder or training raised."""

    message: str
    traceback: str
    epochs: int


@dataclass(frozen=True)
class Call:
    """Call a function of this package that needs Keras, and return what it returns.

    A function with a parameter `tell` gets one that sends a `Doing`.
    """

    function: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Doing:
    """What the call is at, from now on: should the process die, nobody else could say."""

    words: str


@dataclass(frozen=True)
class Returned:
    value: Any
