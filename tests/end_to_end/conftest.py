"""A small project of a user's, and one finished study that several tests look at."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from tests.conftest import hpo_command, run_command
from tests.processes import run_forked

BUILDER = """
import keras

def build(hp, input_shape, num_outputs):
    layers = [keras.Input(input_shape)]
    for i in range(hp.Int("depth", 1, 2)):
        layers.append(keras.layers.Dense(hp.Int(f"units_{i}", 8, 64, sampling="log"), "relu"))
        layers.append(keras.layers.Dropout(hp.Float("dropout", 0.0, 0.4)))
    return keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])
"""

# Of a trial that is to be met in the middle of: many more than it trains while one looks at it.
EPOCHS = 150


def study_content(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "version": 1,
        "name": "small",
        "data": {
            "source": {"type": "sklearn", "name": "digits"},
            "preprocess": {"normalize": "standard"},
        },
        "model": {"builder": "builder:build"},
        "objective": {"metric": "val_accuracy", "direction": "maximize"},
        "training": {"epochs": 6, "seed": 3},
        "space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}},
        "search": {"trials": 8, "pruner": {"type": "median", "n_startup_trials": 2}},
    }
    return content | changes


@dataclass(frozen=True)
class Project:
    """A folder with a builder and a study file, and the command run in it.

    `start` begins an interpreter as a shell does; `hpo` saves the second that its imports take.
    """

    folder: Path
    forkserver: str

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder / 'hpo.db'}"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"COLUMNS": "120", "HPO_FORKSERVER": self.forkserver}

    def write(self, content: dict[str, Any]) -> None:
        (self.folder / "builder.py").write_text(BUILDER)
        (self.folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def hpo(self, *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        return run_forked(run_command, words, self.folder, self.environment, timeout)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            hpo_command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def query(self, text: str) -> list[Any]:
        engine = sa.create_engine(self.storage)
        try:
            with engine.connect() as connection:
                return list(connection.execute(sa.text(text)))
        finally:
            engine.dispose()


def in_the_middle(project: Project, trials: int = 1) -> list[int] | None:
    """The running trials that have reported some of `EPOCHS`, where they are as many or more."""
    if not (project.folder / "hpo.db").exists():
        return None
    try:
        rows = project.query(
            "SELECT t.number FROM trials t JOIN trial_intermediate_values v USING (trial_id) "
            "WHERE t.state = 'RUNNING' GROUP BY t.number "
            f"HAVING count(*) BETWEEN 5 AND {2 * EPOCHS // 3}"
        )
    except sa.exc.OperationalError:
        # The file is there, its tables are still being made.
        return None
    return [number for (number,) in rows] if len(rows) >= trials else None


@pytest.fixture
def project(tmp_path: Path, forkserver: str) -> Project:
    made = Project(tmp_path, forkserver)
    made.write(study_content())
    return made


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, forkserver: str) -> Project:
    """A project whose study has run to its end with `hpo run`; tests must not change it."""
    made = Project(tmp_path_factory.mktemp("finished"), forkserver)
    made.write(study_content())
    done = made.hpo("run", "study.yaml", "--workers", 2)
    (made.folder / "run.out").write_text(done.stdout)
    (made.folder / "run.err").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    return made
