"""Killed, stopped and suspended workers. The numbers are the rows of docs/faults.md.

`make faults` runs all of them; those marked long are left out of `make test`.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from hpo.study.database import Database
from hpo.study.leases import MOST_LOST
from hpo.study.studies import open_study, stop_study
from tests.conftest import wait_for
from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec, main, submit_fake
from tests.processes import Forked

pytestmark = pytest.mark.slow

SLOW = {"builder": "fake:fake", "args": {"seconds": 0.3}}


def test_row_01_one_worker_killed_in_the_middle_of_a_trial(farm: Farm) -> None:
    farm.submit(fake_spec())
    first, *_ = farm.workers(4)
    held = farm.kill_in_a_trial(first)
    where = f"FROM hpo_slots WHERE slot = {held.slot}"
    [(claimed_before,)] = wait_for(
        lambda: farm.query(f"SELECT expires_at - 3.0 {where} AND token > {held.token}") or None
    )
    # Not before the lease had run out, by the database's own clock.
    assert claimed_before >= held.expires_at
    farm.leave()
    farm.check_end(interruptions=1)
    assert farm.query(f"SELECT token, lost {where}") == [(held.token + 1, 0)]
    before, after = farm.epochs_of(held)
    assert held.reported < after[0] <= max(before) + 1


def test_row_02_all_workers_killed_and_started_again(farm: Farm) -> None:
    farm.submit(fake_spec())
    workers = farm.workers(4)
    wait_for(lambda: farm.reports() >= 20)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.communicate()
    saved = {(int(n), int(e)) for n, e in _reported(farm)}
    before = len(farm.epochs_run())
    farm.workers(4)
    farm.leave()
    farm.check_end(interruptions=4)
    assert saved.isdisjoint(farm.epochs_run()[before:])


def _reported(farm: Farm) -> list[tuple[int, int]]:
    return farm.query(
        "SELECT number, step FROM trials JOIN trial_intermediate_values USING (trial_id)"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hpo_slots SET state",  # claimed, the trial created, nothing committed
        "INSERT INTO trials",  # created, not linked
        "INSERT INTO trial_params",
        "INSERT INTO trial_intermediate_values",
        "UPDATE trials SET state",  # told, the slot not ended
        "INSERT INTO trial_values",
    ],
)
def test_row_03_killed_between_two_writes_of_one_step(farm: Farm, statement: str) -> None:
    farm.submit(fake_spec(search={"trials": 4, "sampler": "random"}))
    doomed = farm.worker("--die-at", statement)
    doomed.communicate(timeout=60)
    assert doomed.returncode == -signal.SIGKILL
    farm.workers(2)
    farm.leave()
    farm.check_end(interruptions=1)


def test_row_06_the_one_who_takes_over_is_killed_in_its_claim(farm: Farm) -> None:
    farm.submit(fake_spec(search={"trials": 1, "sampler": "random"}))
    held = farm.kill_in_a_trial(farm.worker())
    second = farm.worker("--die-at", "UPDATE hpo_slots SET state")
    second.communicate(timeout=60)
    assert second.returncode == -signal.SIGKILL
    slot = "SELECT token, state, lost FROM hpo_slots"
    assert farm.query(slot) == [(held.token, "leased", 0)]
    farm.workers(4)
    farm.leave()
    farm.check_end(interruptions=1)
    # The claim of the one who was killed has never been; then one took over, exactly one.
    assert farm.query(slot) == [(held.token + 1, "done", 0)]
    before, after = farm.epochs_of(held)
    assert held.reported < after[0] <= max(before) + 1


@pytest.mark.long
def test_row_06_the_one_who_takes_over_is_killed_too(farm: Farm) -> None:
    farm.submit(fake_spec(search={"trials": 3, "sampler": "random"}, model=SLOW))
    farm.kill_in_a_trial(farm.worker())
    second = farm.worker("--die-at", "INSERT INTO trial_intermediate_values")
    second.communicate(timeout=60)
    assert second.returncode == -signal.SIGKILL
    farm.workers(3)
    farm.leave()
    farm.check_end(interruptions=2)
    assert farm.query("SELECT sum(token) FROM hpo_slots") == [(3 + 2,)]


def test_row_07_a_trial_that_kills_its_trainer(sqlite_farm: Farm) -> None:
    model = {"builder": "fake:fake", "args": {"seconds": 0.01, "deadly": [2, 5]}}
    sqlite_farm.submit(fake_spec(model=model, search={"trials": 8, "sampler": "random"}))
    sqlite_farm.workers(2)
    sqlite_farm.leave()
    rows = sqlite_farm.query("SELECT number, state FROM trials ORDER BY number")
    assert [number for number, state in rows if state == "FAIL"] == [2, 5]
    assert len(rows) == 8
    assert sqlite_farm.query("SELECT crashes FROM hpo_slots WHERE number IN (2, 5)") == [(3,), (3,)]
    assert len(sqlite_farm.reasons()) == 2
    assert all("SIGKILL" in reason for reason in sqlite_farm.reasons())


def test_row_07_a_trial_that_kills_its_workers(farm: Farm) -> None:
    model = {"builder": "fake:fake", "args": {"seconds": 0.01, "deadly_worker": [1, 3]}}
    farm.submit(fake_spec(model=model, search={"trials": 6, "sampler": "random"}))
    assert farm.keep_working(2, "--lease", "1") <= 2 * MOST_LOST
    rows = farm.query("SELECT number, state FROM trials ORDER BY number")
    assert len(rows) == 6
    assert [number for number, state in rows if state != "COMPLETE"] == [1, 3]
    slots = farm.query("SELECT lost, state FROM hpo_slots WHERE number IN (1, 3)")
    assert slots == [(MOST_LOST, "done")] * 2
    assert len(farm.reasons()) == 2
    assert all("the worker died 5 times in a row" in reason for reason in farm.reasons())
    assert {trial for trial, _ in farm.epochs_run()} == {0, 2, 4, 5}


def test_row_15_a_worker_suspended_for_longer_than_its_lease(postgresql_farm: Farm) -> None:
    farm = postgresql_farm
    farm.submit(fake_spec(search={"trials": 4, "sampler": "random"}, model=SLOW))
    slow = farm.worker("--lease", "2")
    farm.stop_in_a_trial(slow)
    farm.workers(2, "--lease", "2")
    wait_for(lambda: farm.finished() == 4)
    slow.send_signal(signal.SIGCONT)
    farm.leave()
    farm.check_end(interruptions=1)


def test_row_15_its_trainer_dies_when_the_lease_is_lost(postgresql_farm: Farm) -> None:
    farm = postgresql_farm
    farm.submit(fake_spec(search={"trials": 2, "sampler": "random"}, model=SLOW))
    slow = farm.worker("--lease", "1")
    held = farm.stop_in_a_trial(slow)
    [trainer] = psutil.Process(slow.pid).children()
    trainer.kill()
    farm.worker("--lease", "60")
    taken_over = f"SELECT slot FROM hpo_slots WHERE slot = {held.slot} AND token > {held.token}"
    wait_for(lambda: farm.query(taken_over) or None)
    slow.send_signal(signal.SIGCONT)
    _, errors = slow.communicate(timeout=60)
    assert slow.returncode == 0, errors
    assert "was taken over" in errors
    farm.leave()
    farm.check_end(interruptions=1)
    assert farm.query("SELECT sum(crashes) FROM hpo_slots") == [(0,)]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_16_told_to_leave(sqlite_farm: Farm, number: signal.Signals) -> None:
    """At whatever moment: ten workers, each told at another one."""
    farm = sqlite_farm
    farm.submit(fake_spec())
    for round_ in range(5):
        worker = farm.worker("--lease", "600")
        before = farm.reports()
        wait_for(lambda before=before: farm.reports() > before)
        time.sleep(0.02 * round_)  # not waiting: each signal meets another moment
        worker.send_signal(number)
        _, errors = worker.communicate(timeout=30)
        assert worker.returncode == (130 if number == signal.SIGINT else 0), errors
        assert farm.query("SELECT count(*) FROM hpo_slots WHERE state = 'leased'") == [(0,)]
    last = farm.worker("--lease", "600")
    assert last.wait(timeout=90) == 0
    farm.check_end(interruptions=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_row_16_told_at_ask_in_fit_and_at_tell(sqlite_farm: Farm, number: signal.Signals) -> None:
    farm = sqlite_farm
    farm.submit(fake_spec(search={"trials": 4, "sampler": "random"}))
    moments = [
        "INSERT INTO trials",
        "INSERT INTO trial_params",
        "INSERT INTO trial_intermediate_values",
        "UPDATE trials SET state",
    ]
    for statement in moments:
        worker = farm.worker("--lease", "600", "--die-at", statement, "--by", number.name)
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == (130 if number == signal.SIGINT else 0), errors
        assert farm.query("SELECT count(*) FROM hpo_slots WHERE state = 'leased'") == [(0,)]
    assert farm.finished() >= 1
    farm.processes.clear()
    farm.worker("--lease", "600")
    farm.leave()
    farm.check_end(interruptions=len(moments))


def test_a_worker_of_a_stopped_study_starts_no_trainer(sqlite_farm: Farm) -> None:
    sqlite_farm.submit(fake_spec(model=SLOW))
    worker = sqlite_farm.worker()
    wait_for(lambda: sqlite_farm.in_a_trial(worker))
    with closing(Database(sqlite_farm.url)) as database:
        stop_study(database, open_study(database, sqlite_farm.name), "stopped by hand")
    worker.wait(timeout=60)
    sqlite_farm.worker()
    sqlite_farm.leave()
    # Each that prepares leaves a letter.
    assert len(sqlite_farm.folder.joinpath("dying").read_text()) == 1


def test_row_16_told_twice_it_ends_at_once(sqlite_farm: Farm) -> None:
    sqlite_farm.submit(fake_spec(model=SLOW))
    worker = sqlite_farm.worker()
    sqlite_farm.stop_in_a_trial(worker)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        worker.send_signal(number)
    assert worker.wait(timeout=60) == 130
    # Told once, it would have given its trial back.
    assert sqlite_farm.query("SELECT state FROM hpo_slots WHERE trial_id > 0") == [("leased",)]


# Far shorter than the clocks are wrong, and longer than a busy machine holds a worker up.
_LONG = ("--lease", "60")


@dataclasses.dataclass(frozen=True)
class _Clock:
    zone: str
    offset: str


_CLOCKS = [
    _Clock("UTC", "+0"),
    _Clock("Asia/Tokyo", "+2d"),
    _Clock("America/Los_Angeles", "-3h"),
    _Clock("Pacific/Kiritimati", "-400d"),
]


def test_row_17_clocks_and_time_zones_do_not_matter(server_farm: Farm, faketime: Path) -> None:
    farm = server_farm
    farm.submit(fake_spec())
    begun = _utc_now()
    for clock in _CLOCKS:
        farm.worker(*_LONG, TZ=clock.zone, FAKETIME=clock.offset, **_faked(faketime))
    farm.leave()
    _check_real_times(farm, begun)
    farm.check_end(interruptions=0)
    assert farm.query("SELECT max(token) FROM hpo_slots") == [(1,)]


def test_row_17_clocks_that_jump_do_not_matter(
    server_farm: Farm, faketime: Path, tmp_path: Path
) -> None:
    farm = server_farm
    farm.submit(fake_spec())
    begun, now = _utc_now(), tmp_path / "now"
    now.write_text("+0\n")
    jumping = {"FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1"}
    for _ in range(2):
        farm.worker(*_LONG, **jumping, **_faked(faketime))
    farm.workers(2, *_LONG)
    for jump in ("+2d", "-5h", "+0"):
        before = farm.reports()
        now.write_text(f"{jump}\n")
        wait_for(lambda before=before: farm.reports() >= before + 8)
    farm.leave()
    _check_real_times(farm, begun)
    farm.check_end(interruptions=0)
    assert farm.query("SELECT max(token) FROM hpo_slots") == [(1,)]


def _faked(library: Path) -> dict[str, str]:
    # Waiting goes by the monotonic clock, which no change of the time moves.
    return {"LD_PRELOAD": str(library), "DONT_FAKE_MONOTONIC": "1"}


def _utc_now() -> datetime.datetime:
    # Optuna's columns on MySQL hold whole seconds.
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)


def _check_real_times(farm: Farm, begun: datetime.datetime) -> None:
    """Every trial began and ended after `begun` and before now, as Optuna keeps it."""
    ended = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    for start, complete in farm.query("SELECT datetime_start, datetime_complete FROM trials"):
        assert begun <= start <= complete <= ended


@pytest.mark.long
def test_row_18_sixteen_workers_at_once_on_an_empty_database(farm: Farm, tmp_path: Path) -> None:
    farm.spec = _THIRTY_TWO
    words = [farm.url, farm.name, str(tmp_path)]
    farm.processes += [Forked(_submit_and_work, words) for _ in range(16)]
    farm.leave(180)
    farm.check_end(interruptions=0)


_THIRTY_TWO = fake_spec(
    model={"builder": "fake:fake", "args": {"seconds": 0.01}},
    search={"trials": 32, "sampler": "random"},
)


def _submit_and_work(words: list[str]) -> int:
    submit_fake(words[0], _THIRTY_TWO)
    return main(words)


@pytest.mark.long
def test_row_19_two_hundred_quick_slots(farm: Farm) -> None:
    model = {"builder": "fake:fake", "args": {"seconds": 0.01}}
    training = {"epochs": 1, "seed": 5}
    search = {"trials": 200, "sampler": "random"}
    farm.submit(fake_spec(model=model, training=training, search=search))
    farm.workers(8)
    farm.leave(180)
    farm.check_end(interruptions=0)
    assert farm.query("SELECT max(token) FROM hpo_slots") == [(1,)]


def test_row_20_a_corrupt_checkpoint_starts_the_trial_again(sqlite_farm: Farm) -> None:
    farm = sqlite_farm
    farm.submit(fake_spec(search={"trials": 2, "sampler": "random"}))
    farm.kill_in_a_trial(farm.worker())
    for file in farm.folder.glob("artifacts/faults/trial-*/epoch-*.zip"):
        os.truncate(file, 40)
    assert farm.worker().wait(timeout=60) == 0
    rows = farm.query("SELECT state FROM trials")
    assert rows == [("COMPLETE",), ("COMPLETE",)]
