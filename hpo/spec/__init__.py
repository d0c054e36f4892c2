"""The study file: YAML in, one frozen `StudySpec` out."""

from hpo.spec.loader import StudyFile, load_study_file, read_study_values
from hpo.spec.models import StudySpec
from hpo.spec.schema import study_schema, study_schema_text
from hpo.spec.writer import study_file_text, write_study_file

__all__ = [
    "StudyFile",
    "StudySpec",
    "load_study_file",
    "read_study_values",
    "study_file_text",
    "study_schema",
    "study_schema_text",
    "write_study_file",
]
