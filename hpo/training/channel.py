"""What a trial in the trainer and the one who runs the study say to each other. No Keras here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hpo.artifacts import Place
from hpo.spec.models import Parameter, Scalar


@dataclass(frozen=True)
class TrialTask:
    """One trial to be run, from its last checkpoint if there is one.

    Attributes:
        seed: Of weights, order of rows and random layers.
        token: The lease's.
        folder: For its checkpoints.
        reported: The last epoch that the study knows of, 0 if none.
        pruned: Whether it has been told to end by a report; only its last checkpoint is read.
    """

    number: int
    seed: int
    token: int
    folder: Place
    reported: int
    pruned: bool = False


@dataclass(frozen=True)
class Begun:
    """The model is built.

    Attributes:
        epoch: So many epochs a checkpoint brought along.
        parameters: Numbers in the model's weights.
        device: `CPU`, or the GPU such as `GPU:1`.
    """

    epoch: int
    parameters: int
    device: str


@dataclass(frozen=True)
class Attachment:
    """A small file to be shown with a trial."""

    name: str
    content: bytes


class Channel(Protocol):
    """How a trial speaks with whoever runs the study."""

    def suggest(self, name: str, parameter: Parameter) -> Scalar:
        """A value inside the parameter's range."""

    def begin(self, begun: Begun) -> None:
        """The model is built and training begins."""

    def report(self, epoch: int, value: float) -> bool:
        """An epoch (from 1) has ended with this value of the objective; whether to prune."""
