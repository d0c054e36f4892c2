from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.spec.models import DataSpec

Save = Callable[..., DataSpec]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes arrays to data.npz in `tmp_path` and returns the data section that names them."""

    def save_arrays(x: Any, y: Any, **section: Any) -> DataSpec:
        np.savez(tmp_path / "data.npz", x=x, y=y)
        source = {"type": "npz", "path": "data.npz"}
        return DataSpec.model_validate({"source": source, **section})

    return save_arrays


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    """60 rows of 4 features on different scales, with 3 balanced classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) * [1, 10, 100, 1e-3] + [0, 5, 1000, 0]
    return x, np.arange(60) % 3
