"""The study file: YAML in, one frozen `StudySpec` out."""

from hpo.spec.models import StudySpec

__all__ = ["StudySpec"]
