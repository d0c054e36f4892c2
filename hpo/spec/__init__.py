"""The study file: YAML in, one frozen `StudySpec` out."""

from hpo.spec.loader import StudyFile, load_study_file
from hpo.spec.models import StudySpec

__all__ = ["StudyFile", "StudySpec", "load_study_file"]
