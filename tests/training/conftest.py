from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.training.trials import BUILDERS, make_spec

if TYPE_CHECKING:
    from hpo.training.trial import Bench

MakeBench = Callable[..., "Bench"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "tiny.py").write_text(BUILDERS)
    return folder


@pytest.fixture(scope="session")
def deterministic() -> None:
    """Holds for the rest of the process, as it does in a trainer."""
    import keras_tuner  # noqa: F401
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    # As the fork server does: Keras collects garbage at every build, and modules are many.
    gc.freeze()


@pytest.fixture(scope="session")
def digits(project: Path, deterministic: None) -> Bench:
    from hpo.training.trial import prepare

    return prepare(make_spec(), project)


@pytest.fixture(scope="session")
def make_bench(digits: Bench) -> MakeBench:
    """The digits with other sections in the spec; data and builder are shared."""

    def make(**sections: Any) -> Bench:
        return replace(digits, spec=make_spec(**sections))

    return make
