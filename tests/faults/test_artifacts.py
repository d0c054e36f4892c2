"""Trouble with the place of artifacts. The numbers are the rows of docs/faults.md."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpo.artifacts import Place, list_folder, open_artifacts
from tests.conftest import fill_disk, wait_for
from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec

pytestmark = pytest.mark.slow

# 80 kB a checkpoint.
BIG = {"builder": "fake:fake", "args": {"seconds": 0.1, "numbers": 10_000}}
FOUR = {"trials": 4, "sampler": "random"}


@pytest.fixture(params=["local", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "artifacts")
    return f"{request.getfixturevalue('bucket')}/some/prefix"


def test_row_01_taken_over_from_any_place(sqlite_farm: Farm, artifacts: str) -> None:
    farm = sqlite_farm
    farm.submit(fake_spec(search={"trials": 6, "sampler": "random"}))
    farm.kill_in_a_trial(farm.worker("--artifacts", artifacts))
    farm.workers(2, "--artifacts", artifacts)
    farm.leave()
    farm.check_end(interruptions=1)
    resumed = farm.query("SELECT value_json FROM trial_user_attributes WHERE key = 'resumed_at'")
    assert len(resumed) == 1
    assert resumed[0] != ("[0]",)


def test_row_25_a_study_that_is_made_again_starts_anew(sqlite_farm: Farm, artifacts: str) -> None:
    farm = sqlite_farm
    one = {"trials": 1, "sampler": "random"}
    farm.submit(fake_spec(search=one))
    first = farm.worker("--artifacts", artifacts)
    farm.kill_in_a_trial(first)
    farm.folder.joinpath("epochs.log").unlink()
    for file in farm.folder.glob("hpo.db*"):
        file.unlink()
    farm.submit(fake_spec(search=one, training={"epochs": 8, "seed": 6}))
    second = farm.worker("--artifacts", artifacts)
    farm.kill_in_a_trial(second)
    farm.worker("--artifacts", artifacts)
    farm.leave()
    # Its own checkpoint is gone on from.
    farm.check_end(interruptions=1)


def test_what_is_left_when_a_study_has_ended(sqlite_farm: Farm, artifacts: str) -> None:
    """The best checkpoint of the best three trials, a picture of each trial, and nothing else."""
    farm = sqlite_farm
    model = {"builder": "fake:fake", "args": {"seconds": 0.05, "best": 3}}
    farm.submit(fake_spec(model=model, search={"trials": 6, "sampler": "random"}))
    first = farm.worker("--artifacts", artifacts)
    wait_for(lambda: farm.reports() >= 12)
    farm.kill_in_a_trial(first)
    farm.workers(2, "--artifacts", artifacts)
    farm.leave()
    best = farm.query(
        "SELECT a.value_json FROM trial_values JOIN trial_user_attributes a USING (trial_id) "
        "WHERE a.key = 'checkpoint' ORDER BY value DESC LIMIT 3"
    )
    place = open_artifacts(artifacts)
    left = files_below(place)
    pictures = {path for path in left if path.startswith("files/")}
    assert left - pictures == {path.strip('"') for (path,) in best}
    assert len(pictures) == 6


def files_below(folder: Place, prefix: str = "") -> set[str]:
    found = set()
    for path in list_folder(folder):
        inside = files_below(path, f"{prefix}{path.name}/") if path.is_dir() else set()
        found |= inside if path.is_dir() else {prefix + path.name}
    return found


def test_a_bucket_that_is_not_there_stops_before_any_trial(sqlite_farm: Farm, bucket: str) -> None:
    farm = sqlite_farm
    farm.submit(fake_spec())
    worker = farm.worker("--artifacts", f"{bucket}-of-somebody/else")
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert "bucket does not exist" in errors
    assert "--artifacts" in errors
    assert "Traceback" not in errors
    assert farm.query("SELECT count(*) FROM trials") == [(0,)]


def check_given_back(farm: Farm) -> None:
    """Nothing is leased, no trial has failed, no attempt was counted."""
    assert farm.query("SELECT count(*) FROM hpo_slots WHERE state = 'leased'") == [(0,)]
    assert farm.query("SELECT count(*) FROM trials WHERE state = 'FAIL'") == [(0,)]
    assert farm.query("SELECT sum(crashes), sum(exceptions) FROM hpo_slots") == [(0, 0)]


def all_leave(farm: Farm, words: dict[int, str], meanwhile: Callable[[], None]) -> None:
    """Every worker leaves by itself with one error, which says the words of its exit code."""
    deadline = time.monotonic() + 60
    while any(process.poll() is None for process in farm.processes):
        assert time.monotonic() < deadline
        meanwhile()
        time.sleep(0.01)
    for process in farm.processes:
        _, errors = process.communicate()
        assert words.get(process.returncode, "a code that is none of these") in errors
        assert "Traceback" not in errors
        assert errors.count("error: ") == 1
    farm.processes.clear()


def test_row_20_a_full_disk(sqlite_farm: Farm, small_disk: Path) -> None:
    farm, options = sqlite_farm, ("--artifacts", str(small_disk / "artifacts"))
    farm.submit(fake_spec(model=BIG, search=FOUR))
    farm.workers(2, *options)
    wait_for(lambda: farm.reports() >= 3)
    ballast = small_disk / "ballast"
    all_leave(farm, {1: "No space left on device; make room there"}, lambda: fill_disk(ballast))
    check_given_back(farm)
    before = len(farm.epochs_run())
    farm.worker(*options)
    all_leave(farm, {1: "No space left on device"}, lambda: None)
    assert len(farm.epochs_run()) == before
    ballast.unlink()
    farm.workers(2, *options)
    farm.leave()
    farm.check_end(interruptions=2)


@pytest.mark.long
def test_row_20_a_full_disk_with_the_database_on_it(sqlite_farm: Farm, small_disk: Path) -> None:
    farm = sqlite_farm
    farm.url, farm.folder = f"sqlite:///{small_disk / 'hpo.db'}", small_disk
    farm.submit(fake_spec(model=BIG, search=FOUR))
    farm.workers(2, "--patience", "5")
    wait_for(lambda: farm.reports() >= 3)
    ballast = small_disk / "ballast"
    # Whichever of the two files meets the full disk first.
    words = {1: "No space left on device", 5: "disk is full"}
    all_leave(farm, words, lambda: fill_disk(ballast))
    ballast.unlink()
    assert farm.query("PRAGMA integrity_check") == [("ok",)]
    farm.workers(2)
    farm.leave()
    assert farm.query("SELECT state FROM trials") == [("COMPLETE",)] * 4
    assert farm.reports() == 4 * 8


def put_a_file_in_its_place(artifacts: Path) -> None:
    shutil.rmtree(artifacts, ignore_errors=True)
    with contextlib.suppress(OSError):
        artifacts.touch()


def test_row_20_a_folder_that_can_t_be_made_again(sqlite_farm: Farm) -> None:
    farm, artifacts = sqlite_farm, sqlite_farm.folder / "artifacts"
    farm.submit(fake_spec(search=FOUR))
    farm.workers(2)
    wait_for(lambda: farm.reports() >= 3)
    all_leave(farm, {1: "check --artifacts"}, lambda: put_a_file_in_its_place(artifacts))
    check_given_back(farm)
    artifacts.unlink()
    farm.workers(2)
    farm.leave()
    assert farm.query("SELECT state FROM trials") == [("COMPLETE",)] * 4
    assert farm.reports() == 4 * 8


@pytest.mark.long
def test_row_20_a_disk_that_became_read_only(sqlite_farm: Farm, small_disk: Path) -> None:
    def remount(how: str) -> None:
        command = ["mount", "-o", f"remount,{how}", str(small_disk)]
        # Busy while a checkpoint is being written.
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    farm, options = sqlite_farm, ("--artifacts", str(small_disk))
    farm.submit(fake_spec(search=FOUR))
    farm.workers(2, *options)
    wait_for(lambda: farm.reports() >= 3)
    all_leave(farm, {1: "Read-only file system"}, lambda: remount("ro"))
    check_given_back(farm)
    remount("rw")
    farm.workers(2, *options)
    farm.leave()
    farm.check_end(interruptions=2)


def test_row_20_a_deleted_folder_is_made_again(sqlite_farm: Farm) -> None:
    farm = sqlite_farm
    farm.submit(fake_spec(search=FOUR))
    farm.workers(2)
    for reports in (3, 10, 20):
        wait_for(lambda reports=reports: farm.reports() >= reports)
        shutil.rmtree(farm.folder / "artifacts", ignore_errors=True)
    farm.leave()
    farm.check_end(interruptions=0)
