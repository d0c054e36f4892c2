"""Processes are really killed: the study still ends with exactly N trials, nothing run twice."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest

from hpo.training.checkpoints import load_checkpoint
from tests.conftest import wait_for
from tests.end_to_end.conftest import EPOCHS, Project, in_the_middle, study_content

pytestmark = pytest.mark.keras

TRIALS = 2


@pytest.fixture
def long_project(project: Project) -> Project:
    content = study_content()
    content["training"]["epochs"] = EPOCHS
    content["search"] = {"trials": TRIALS}
    project.write(content)
    return project


def reported(project: Project, number: int) -> int:
    rows = project.query(
        "SELECT max(step) FROM trial_intermediate_values JOIN trials USING (trial_id) "
        f"WHERE number = {number}",
    )
    return int(rows[0][0])


def trainers_of(project: Project, worker: int) -> list[int]:
    """Trainers write to a log that carries their worker's name."""
    [(name,)] = project.query(f"SELECT worker FROM hpo_workers WHERE pid = {worker}")
    found = []
    for process in psutil.process_iter(["cmdline"]):
        # The files of every process of the machine would take as long as a trial.
        if "hpo.worker.forkserver" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                if any(file.path.endswith(f"{name}.log") for file in process.open_files()):
                    found.append(process.pid)
    return found


def check_end(project: Project) -> optuna.Study:
    study = optuna.load_study(study_name="small", storage=project.storage)
    found = study.get_trials()
    assert [trial.number for trial in found] == list(range(TRIALS))
    assert [trial.state.name for trial in found] == ["COMPLETE"] * TRIALS
    for trial in found:
        assert sorted(trial.intermediate_values) == list(range(1, EPOCHS + 1))
        assert trial.user_attrs["epochs"] == EPOCHS
    return study


def check_resumed(study: optuna.Study, number: int, saved: int) -> None:
    """It went on behind the last epoch that the study knew of: none was trained again."""
    resumed_at = study.get_trials()[number].user_attrs["resumed_at"]
    assert len(resumed_at) == 1
    assert resumed_at[0] >= saved


def test_a_killed_worker_s_trial_is_taken_over(long_project: Project) -> None:
    assert long_project.hpo("submit", "study.yaml").returncode == 0
    first = long_project.start("worker", "small", "--lease", "3")
    [number] = wait_for(lambda: in_the_middle(long_project))
    first.kill()
    first.communicate()
    saved = reported(long_project, number)
    done = long_project.hpo("worker", "small", "--lease", "3")
    assert done.returncode == 0, done.stderr
    check_resumed(check_end(long_project), number, saved)


def test_a_killed_trainer_costs_one_attempt_and_not_the_worker(long_project: Project) -> None:
    assert long_project.hpo("submit", "study.yaml").returncode == 0
    worker = long_project.start("worker", "small")
    [number] = wait_for(lambda: in_the_middle(long_project))
    [trainer] = trainers_of(long_project, worker.pid)
    os.kill(trainer, signal.SIGKILL)
    saved = reported(long_project, number)
    output, _ = worker.communicate(timeout=200)
    assert worker.returncode == 0, output
    assert "SIGKILL" in output
    check_resumed(check_end(long_project), number, saved)


def test_a_trainer_ends_with_its_worker(long_project: Project) -> None:
    assert long_project.hpo("submit", "study.yaml").returncode == 0
    worker = long_project.start("worker", "small")
    wait_for(lambda: in_the_middle(long_project))
    [trainer] = trainers_of(long_project, worker.pid)
    worker.kill()
    worker.communicate()
    wait_for(lambda: not psutil.pid_exists(trainer))


@pytest.mark.long
def test_row_05_killed_twice_equals_never_killed(
    long_project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = study_content()
    content["training"] |= {"epochs": EPOCHS, "deterministic": True}
    content["search"] = {"trials": 1}
    long_project.write(content)
    calm = Project(tmp_path_factory.mktemp("calm"), long_project.forkserver)
    calm.write(content)
    assert calm.hpo("run", "study.yaml", "--workers", 1, "--no-export").returncode == 0

    assert long_project.hpo("submit", "study.yaml").returncode == 0
    worker = long_project.start("worker", "small", "--threads", "2")
    wait_for(lambda: in_the_middle(long_project))
    for _ in range(2):
        [trainer] = trainers_of(long_project, worker.pid)
        os.kill(trainer, signal.SIGKILL)
        before = reported(long_project, 0)
        # Where the worker has left, it says below why.
        wait_for(
            lambda before=before: (
                reported(long_project, 0) > before + 3 or worker.poll() is not None
            )
        )
    output, _ = worker.communicate(timeout=200)
    assert worker.returncode == 0, output
    killed, never = (_trial_and_weights(each) for each in (long_project, calm))
    assert len(killed[0].user_attrs["resumed_at"]) == 2
    assert killed[0].intermediate_values == never[0].intermediate_values
    assert killed[0].value == never[0].value
    assert len(killed[1]) == len(never[1]) > 0
    for one, other in zip(killed[1], never[1], strict=True):
        np.testing.assert_array_equal(one, other)


def _trial_and_weights(project: Project) -> tuple[optuna.trial.FrozenTrial, list[Any]]:
    [trial] = optuna.load_study(study_name="small", storage=project.storage).get_trials()
    checkpoint = load_checkpoint(project.folder / "artifacts" / trial.user_attrs["checkpoint"])
    assert checkpoint is not None
    return trial, [*checkpoint.weights, *checkpoint.optimizer]


def test_ctrl_c_of_run_and_run_again(long_project: Project) -> None:
    run = long_project.start("run", "study.yaml", "--workers", "1", "--no-export")
    [number] = wait_for(lambda: in_the_middle(long_project))
    workers = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 130, output
    assert "goes on from here" in output
    wait_for(lambda: not any(process.is_running() for process in workers))
    # Given back at once: nobody has to wait for the lease to run out.
    assert long_project.query("SELECT count(*) FROM hpo_slots WHERE state = 'leased'") == [(0,)]
    saved = reported(long_project, number)
    done = long_project.hpo("run", "study.yaml", "--workers", "1", "--no-export")
    assert done.returncode == 0, done.stderr
    check_resumed(check_end(long_project), number, saved)


@pytest.mark.long
def test_row_16_a_second_ctrl_c_of_run_ends_it_at_once(long_project: Project) -> None:
    content = study_content()
    # It is never to end by itself, however slow the machine is.
    content["training"]["epochs"] = 100 * EPOCHS
    long_project.write(content)
    run = long_project.start("run", "study.yaml", "--workers", "1", "--no-export")
    wait_for(lambda: in_the_middle(long_project))
    children = psutil.Process(run.pid).children(recursive=True)
    [(worker,)] = long_project.query("SELECT pid FROM hpo_workers")
    # It does not leave when it is told to: the launcher would wait for it, and kill it in the end.
    os.kill(worker, signal.SIGSTOP)
    # A thread that still runs would take the next signal.
    wait_for(lambda: is_stopped(worker))
    run.send_signal(signal.SIGINT)
    wait_for(lambda: is_pending(signal.SIGTERM, worker))
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=30) == 130
    assert psutil.Process(worker).status() == psutil.STATUS_STOPPED
    os.kill(worker, signal.SIGCONT)
    run.communicate(timeout=30)
    wait_for(lambda: not any(process.is_running() for process in children))
    assert long_project.query("SELECT count(*) FROM hpo_slots WHERE state = 'leased'") == [(0,)]


def is_stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/status")
    return all("State:\tT" in thread.read_text() for thread in threads)


def is_pending(number: signal.Signals, pid: int) -> bool:
    """Whether the process has been sent the signal and has not got it yet."""
    text = Path(f"/proc/{pid}/status").read_text()
    mask = int(text.partition("ShdPnd:")[2].split()[0], 16)
    return bool(mask & 1 << (number - 1))


@pytest.mark.parametrize(
    ("sent", "words"),
    [(signal.SIGKILL, "another one takes its place"), (signal.SIGTERM, "others are started")],
)
def test_a_worker_of_run_that_is_ended_is_replaced_at_once(
    long_project: Project, sent: signal.Signals, words: str
) -> None:
    """With a lease far longer than the test: the launcher knows that the worker is gone."""
    run = long_project.start(
        *("run", "study.yaml", "--workers", "1", "--no-export", "--lease", "1000")
    )
    [number] = wait_for(lambda: in_the_middle(long_project))
    [(worker,)] = long_project.query("SELECT pid FROM hpo_workers")
    os.kill(worker, sent)
    saved = reported(long_project, number)
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    assert words in output
    check_resumed(check_end(long_project), number, saved)


def test_a_killed_run_leaves_no_process_behind(long_project: Project) -> None:
    run = long_project.start("run", "study.yaml", "--workers", "2", "--no-export")
    wait_for(lambda: in_the_middle(long_project))
    children = psutil.Process(run.pid).children(recursive=True)
    assert len(children) >= 2
    run.kill()
    run.communicate()
    wait_for(lambda: not any(process.is_running() for process in children))


def test_stop_and_resume(long_project: Project) -> None:
    assert long_project.hpo("submit", "study.yaml").returncode == 0
    worker = long_project.start("worker", "small", "--lease", "2")
    [number] = wait_for(lambda: in_the_middle(long_project))
    assert long_project.hpo("stop").returncode == 0
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 1, output
    assert "given back" in output
    assert "hpo resume small" in output
    saved = reported(long_project, number)
    refused = long_project.hpo("run", "study.yaml")
    assert refused.returncode == 1
    assert "stopped with hpo stop" in refused.stderr
    assert "hpo resume small" in refused.stderr
    assert long_project.hpo("resume").returncode == 0
    assert long_project.hpo("worker", "small").returncode == 0
    check_resumed(check_end(long_project), number, saved)


BAD_BUILDERS = {
    "raises": r"raise RuntimeError('broken\n\x1b[2Jfor good')",
    "leaves": "import sys; sys.exit('bye')",
    "dies": "import os; os.abort()",
    "hangs": "import time; time.sleep(600)",
    "grows": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32)); "
    "import numpy; numpy.ones(1 << 33)",
}


def write_bad_builder(folder: Path, what: str) -> None:
    """Bad for trials only: the checks before a study take the lowest values."""
    text = f"""
import keras

def build(hp, input_shape, num_outputs):
    if hp.Float("luck", 0.0, 1.0) > 0.0:
        {BAD_BUILDERS[what]}
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax"),
    ])
"""
    (folder / "builder.py").write_text(text)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("raises", r"RuntimeError: broken \x1b[2Jfor good ({builder}, line 6)"),
        ("leaves", "SystemExit: bye ({builder}, line 6)"),
        ("dies", "SIGABRT"),
        ("hangs", "time limit of 2 s"),
        ("grows", "MemoryError"),
    ],
)
def test_row_21_failing_trials_are_recorded_and_stop_the_study(
    project: Project, what: str, words: str
) -> None:
    content = study_content(space={})
    content["search"] = {
        "trials": 4,
        "trial_timeout": "2s" if what == "hangs" else "60s",
        "retries": {"crash": 0},
        "max_consecutive_failures": 2,
    }
    project.write(content)
    write_bad_builder(project.folder, what)
    assert project.hpo("submit", "study.yaml").returncode == 0
    done = project.hpo("worker", "small")
    assert done.returncode == 1, done.stderr
    words = words.format(builder=project.folder / "builder.py")
    assert "the last 2 trials failed alike: " in done.stderr
    assert words in done.stderr
    trials = optuna.load_study(study_name="small", storage=project.storage).get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL"]
    assert all(words in trial.user_attrs["reason"] for trial in trials)
    status = project.hpo("status")
    assert "the last 2 trials failed alike" in status.stdout.replace("\n", " ")
