"""The JSON Schema of a study file, for editors that complete and check while a person types."""

from __future__ import annotations

import json
from typing import Any

from hpo.spec.models import StudySpec


def study_schema() -> dict[str, Any]:
    """Describes a study file as JSON Schema, draft 2020-12.

    It knows keys, types, ranges and names, but not what holds across entries.
    """
    schema: dict[str, Any] = _without_discriminators(StudySpec.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Study file of the Keras hyperparameter optimization service",
    }


def study_schema_text() -> str:
    """Writes the schema the same way every time, so that a committed copy can be compared."""
    return json.dumps(study_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _without_discriminators(part: Any) -> Any:
    """Drops a keyword of OpenAPI that pydantic adds and JSON Schema does not have."""
    if isinstance(part, list):
        return [_without_discriminators(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _without_discriminators(value)
        for key, value in part.items()
        if not (key == "discriminator" and "propertyName" in value)
    }
