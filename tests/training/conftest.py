from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.training.trials import BUILDERS, MIXED, make_spec

if TYPE_CHECKING:
    from hpo.training.bench import Bench

MakeBench = Callable[..., "Bench"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "tiny.py").write_text(BUILDERS)
    (folder / "mixed.py").write_text(MIXED)
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
    from hpo.training.bench import prepare

    return prepare(make_spec(), project)


@pytest.fixture(scope="session")
def make_bench(digits: Bench) -> MakeBench:
    """The digits with other sections in the spec; data and builder are shared."""

    def make(**sections: Any) -> Bench:
        return replace(digits, spec=make_spec(**sections))

    return make


@pytest.fixture
def mixed(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The project's module `mixed`, which sets a policy, is not imported before and after."""
    from hpo.training.seeding import begin_session, keras_settings

    before = keras_settings()
    monkeypatch.delitem(sys.modules, "mixed", raising=False)
    yield
    sys.modules.pop("mixed", None)
    begin_session(0, before)
