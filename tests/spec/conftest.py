from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hpo.spec import StudySpec

MakeSpec = Callable[..., StudySpec]


@pytest.fixture
def make_spec() -> MakeSpec:
    """Builds a small spec; keyword arguments replace whole sections."""

    def make(**sections: Any) -> StudySpec:
        values: dict[str, Any] = {
            "version": 1,
            "name": "digits",
            "data": {"source": {"type": "sklearn", "name": "digits"}},
            "model": {"builder": "models.mlp:MLP"},
            "objective": {"metric": "val_accuracy", "direction": "maximize"},
            "search": {"trials": 5},
        }
        return StudySpec.model_validate({**values, **sections})

    return make
