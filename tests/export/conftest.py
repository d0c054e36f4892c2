from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpo.data import open_raw_part
from hpo.export.values import Bundle, ExportTask
from hpo.training.channel import TrialTask
from tests.conftest import ROOT
from tests.training.trials import MemoryChannel, make_spec

if TYPE_CHECKING:
    from hpo.training.trial import TrialEnd

SEED = 21


@dataclass(frozen=True)
class Exported:
    """A trial that has run, and the bundle that it became."""

    task: ExportTask
    bundle: Bundle
    end: TrialEnd

    @property
    def raw_test_rows(self) -> Any:
        return open_raw_part(self.task.spec.data, self.task.project, "test").x


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The best epoch of an MLP on the digits; tests must not change the bundle."""
    from hpo.export.bundle import write_bundle
    from hpo.training.bench import prepare
    from hpo.training.trial import run_trial

    spec = make_spec(
        name="digits",
        model={"builder": "models.mlp:MLP"},
        training={"epochs": 4, "batch_size": 128},
        space={
            "depth": {"type": "int", "low": 1, "high": 2},
            "units": {"type": "int", "low": 16, "high": 32, "repeat": "depth"},
            "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
            "momentum": {"type": "float", "low": 0, "high": 0.9, "when": {"optimizer": "sgd"}},
            "learning_rate": {"type": "float", "low": 0.01, "high": 0.1, "log": True},
            "batchnorm": True,
        },
    )
    folder = tmp_path_factory.mktemp("exported")
    channel = MemoryChannel({"depth": 2, "units_1": 24})
    bench = prepare(spec, ROOT)
    end = run_trial(bench, TrialTask(5, SEED, 1, folder / "trial", 0), channel)
    params = {name: channel.suggest(name, each) for name, each in channel.suggested.items()}
    assert end.checkpoint is not None
    task = ExportTask(
        spec=spec,
        project=ROOT,
        number=5,
        params=params,
        value=end.progress.best_value or 0.0,
        seed=SEED,
        checkpoint=end.checkpoint,
        folder=folder / "bundle",
        data=bench.data.signature.fingerprint,
    )
    return Exported(task, write_bundle(task), end)


@pytest.fixture
def rows(exported: Exported, tmp_path: Path) -> Path:
    """Raw test rows in a .npz file."""
    np.savez(tmp_path / "rows.npz", x=exported.raw_test_rows)
    return tmp_path / "rows.npz"
