from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.training.trials import MemoryChannel, with_builder

if TYPE_CHECKING:
    from hpo.training.bench import Bench

pytestmark = pytest.mark.keras

MakeBench = Callable[..., "Bench"]


def test_the_space_decides_the_settings(make_bench: MakeBench) -> None:
    from hpo.training.bench import build_model

    space = {
        "units": {"type": "int", "low": 8, "high": 12},
        "learning_rate": {"type": "float", "low": 0.25, "high": 0.5},
        "optimizer": "rmsprop",
        "momentum": {"type": "float", "low": 0.5, "high": 0.9, "when": {"optimizer": "sgd"}},
        "label_smoothing": 0.125,
    }
    built = build_model(make_bench(space=space), MemoryChannel().suggest, 1)
    assert built.settings.learning_rate == float(built.model.optimizer.learning_rate) == 0.25
    assert (built.settings.momentum, built.model.optimizer.momentum) == (0.0, 0.0)
    assert built.model.loss.label_smoothing == 0.125
    assert built.values.taken["units"] == 8
    assert built.unused == frozenset()


@pytest.mark.usefixtures("mixed")
def test_a_policy_of_a_build_is_gone_with_its_trial(make_bench: MakeBench, project: Path) -> None:
    from hpo.training.bench import build_model

    # The second time the module is imported already.
    for _ in range(2):
        bench = with_builder(make_bench(), "mixed:build64", project)
        for _ in range(2):
            model = build_model(bench, MemoryChannel().suggest, 1).model
            assert model.layers[0].compute_dtype == "float64"
            assert model.name == "mixed_float16"
    model = build_model(make_bench(), MemoryChannel().suggest, 1).model
    assert model.layers[0].compute_dtype == "float32"
