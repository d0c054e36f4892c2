"""Trials that ended elsewhere, and what a study's space makes of them. No Keras here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpo.spec.models import Parameter, Scalar


@dataclass(frozen=True)
class PastTrial:
    """A finished trial of another tool: its values by the names that a builder declares."""

    trial_id: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Replay:
    """A past trial as one of the study.

    Attributes:
        params: What the study would have sampled, with the range and the past value.
        reason: Why it is none of the study's; empty when it is.
    """

    trial_id: str
    params: dict[str, tuple[Parameter, Scalar]]
    reason: str = ""
