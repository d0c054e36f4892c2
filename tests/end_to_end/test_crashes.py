"""Trials that bring down their trainer or worker, with Keras; the rows of docs/faults.md."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from tests.conftest import wait_for
from tests.end_to_end.conftest import Project, study_content
from tests.end_to_end.test_faults import trainers_of

pytestmark = [pytest.mark.keras, pytest.mark.slow]

# Each trial takes another kind. Every kind but the first is bad, and only when it is a trial: the
# checks before a study take the first one.
BUILDER = """
import os, resource, signal
import keras
import numpy
import psutil

def limit_memory(more):
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

def allocate(layers):
    limit_memory(1 << 28)
    numpy.ones(1 << 27)

def train_a_big_model(layers):
    limit_memory(1 << 28)
    layers.insert(1, keras.layers.Dense(20_000, "relu"))
    layers.insert(1, keras.layers.Dense(20_000, "relu"))

def kill_the_worker(layers):
    log = os.readlink("/proc/self/fd/1")
    name = os.path.basename(log).removesuffix(".log")
    for process in psutil.process_iter(["cmdline"]):
        if name in (process.info["cmdline"] or []):
            process.kill()
    signal.pause()

def raise_an_error(layers):
    raise RuntimeError("no such luck")

def diverge(layers):
    layers.insert(1, keras.layers.Rescaling(float("nan")))

BAD = {
    "allocate": allocate, "train": train_a_big_model, "kill": kill_the_worker,
    "raise": raise_an_error, "diverge": diverge,
}

def build(hp, input_shape, num_outputs):
    kind = hp.Choice("kind", KINDS)
    layers = [keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax")]
    if kind.partition("_")[0] in BAD:
        BAD[kind.partition("_")[0]](layers)
    return keras.Sequential(layers)
"""


def write_kinds(project: Project, kinds: list[str], **search: Any) -> None:
    """A study with one trial of each kind."""
    sampler = {"type": "grid", "search_space": {"kind": kinds}}
    content = study_content(space={}, search={"trials": len(kinds), "sampler": sampler, **search})
    content["training"]["epochs"] = 2
    project.write(content)
    (project.folder / "builder.py").write_text(BUILDER.replace("KINDS", repr(kinds)))


def ended(project: Project) -> dict[str, optuna.trial.FrozenTrial]:
    """The trials by their kind."""
    trials = optuna.load_study(study_name="small", storage=project.storage).get_trials()
    return {trial.params["kind"]: trial for trial in trials}


@pytest.mark.long
def test_row_08_the_trainer_runs_out_of_memory(project: Project) -> None:
    kinds = ["good_1", "allocate_1", "train_1", "good_2", "allocate_2", "good_3"]
    write_kinds(project, kinds, retries={"crash": 0})
    assert project.hpo("submit", "study.yaml").returncode == 0
    done = project.hpo("worker", "small")
    assert done.returncode == 0, done.stderr
    trials = ended(project)
    assert sorted(trials) == sorted(kinds)
    for kind, trial in trials.items():
        assert trial.state.name == ("COMPLETE" if kind.startswith("good") else "FAIL"), done.stderr
    for kind in ("allocate_1", "allocate_2"):
        assert "the trainer ran out of memory" in trials[kind].user_attrs["reason"]
        assert "MemoryError" in trials[kind].user_attrs["traceback"]
    # TensorFlow raises, aborts or crashes, as it happens.
    words = ("ran out of memory", "SIGABRT", "SIGSEGV", "SIGBUS")
    assert any(word in trials["train_1"].user_attrs["reason"] for word in words), done.stderr


@pytest.mark.long
def test_row_07_a_trial_that_kills_its_workers_and_hpo_run(project: Project) -> None:
    kinds = ["good_1", "kill_1", "good_2", "kill_2"]
    write_kinds(project, kinds)
    done = project.hpo("run", "study.yaml", "--workers", 2, "--no-export")
    assert done.returncode == 0, done.stderr
    trials = ended(project)
    for kind, trial in trials.items():
        assert trial.state.name == ("COMPLETE" if kind.startswith("good") else "FAIL")
    for kind in ("kill_1", "kill_2"):
        assert "the worker died 5 times in a row" in trials[kind].user_attrs["reason"]
    assert done.stderr.count("another one takes its place") == 10


def test_row_21_some_configurations_are_bad(project: Project) -> None:
    kinds = ["good_1", "raise_1", "diverge_1", "good_2"]
    write_kinds(project, kinds)
    assert project.hpo("submit", "study.yaml").returncode == 0
    done = project.hpo("worker", "small")
    assert done.returncode == 0, done.stderr
    trials = ended(project)
    states = {kind: trials[kind].state.name for kind in kinds}
    assert states == dict(zip(kinds, ["COMPLETE", "FAIL", "PRUNED", "COMPLETE"], strict=True))
    raised, diverged = trials["raise_1"].user_attrs, trials["diverge_1"].user_attrs
    place = f"{project.folder / 'builder.py'}, line 29"
    assert raised["reason"] == f"exception: RuntimeError: no such luck ({place})"
    assert "builder.py" in raised["traceback"].splitlines()[1]
    assert diverged["reason"] == "diverged: loss became nan in epoch 1"


BIG = """
import keras

def build(hp, input_shape, num_outputs):
    hp.Float("luck", 0.0, 1.0)
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Dense(1500, "relu"),
        keras.layers.Dense(1500, "relu"),
        keras.layers.Dense(num_outputs, "softmax"),
    ])
"""


def half_written(project: Project) -> list[Path]:
    return list(project.folder.glob("artifacts/**/*.tmp"))


def saved(project: Project) -> int:
    """The last epoch of trial 0 that has its checkpoint."""
    files = project.folder.glob("artifacts/small/trial-00000-*/epoch-*.zip")
    return max((int(path.name[6:11]) for path in files), default=0)


def suspend_while_it_writes(project: Project, worker: subprocess.Popen[str]) -> int:
    """Suspends the worker's trainer with a checkpoint that is begun and not there yet."""
    [trainer] = wait_for(lambda: _trainer(project, worker))
    process = psutil.Process(trainer)

    def caught() -> bool:
        if not half_written(project) or saved(project) < 2:
            return False
        os.kill(trainer, signal.SIGSTOP)
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
        if half_written(project):
            return True
        os.kill(trainer, signal.SIGCONT)
        return False

    wait_for(caught, pause=0.001)
    return trainer


def _trainer(project: Project, worker: subprocess.Popen[str]) -> list[int] | None:
    if saved(project) < 1:
        return None
    return trainers_of(project, worker.pid) or None


@pytest.mark.long
@pytest.mark.parametrize("who", ["trainer", "trainer and worker"])
def test_row_04_killed_while_a_checkpoint_is_written(project: Project, who: str) -> None:
    content = study_content(space={}, search={"trials": 1})
    content["training"]["epochs"] = 12
    project.write(content)
    (project.folder / "builder.py").write_text(BIG)
    assert project.hpo("submit", "study.yaml").returncode == 0
    worker = project.start("worker", "small", "--lease", "3")
    trainer = suspend_while_it_writes(project, worker)
    before = saved(project)
    if who != "trainer":
        worker.kill()
        worker.communicate()
    os.kill(trainer, signal.SIGKILL)
    if who == "trainer":
        output, _ = worker.communicate(timeout=200)
        assert worker.returncode == 0, output
    else:
        assert half_written(project)
        done = project.hpo("worker", "small", "--lease", "3")
        assert done.returncode == 0, done.stderr
    [trial] = optuna.load_study(study_name="small", storage=project.storage).get_trials()
    assert trial.state.name == "COMPLETE"
    assert sorted(trial.intermediate_values) == list(range(1, 13))
    # The epoch whose checkpoint was being written is the only one that is trained again.
    assert trial.user_attrs["resumed_at"] == [before]
    assert project.query("SELECT crashes FROM hpo_slots") == [(int(who == "trainer"),)]
    assert not half_written(project)
