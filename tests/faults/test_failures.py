"""Trials that raise or diverge, and workers that do not fit. Numbers are rows of docs/faults.md."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tests.faults.conftest import Farm
from tests.faults.fake import FACTS, fake_spec

pytestmark = pytest.mark.slow


def submit(farm: Farm, search: dict[str, Any], **args: Any) -> None:
    model = {"builder": "fake:fake", "args": {"seconds": 0.01, **args}}
    farm.submit(fake_spec(model=model, search={"sampler": "random", **search}))


def states(farm: Farm) -> list[str]:
    return [state for (state,) in farm.query("SELECT state FROM trials ORDER BY number")]


def attribute(farm: Farm, number: int, name: str) -> Any:
    [(text,)] = farm.query(
        "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
        f"WHERE number = {number} AND key = '{name}'"
    )
    return json.loads(text)


@pytest.mark.parametrize("retries", [None, 1])
def test_row_21_a_trial_that_raises_is_tried_again(sqlite_farm: Farm, retries: int | None) -> None:
    """As often as the study file says, and when it says nothing: never."""
    farm = sqlite_farm
    search: dict[str, Any] = {} if retries is None else {"retries": {"exception": retries}}
    submit(farm, {"trials": 5, **search}, raising={"1": 1, "3": 9})
    farm.workers(2)
    farm.leave()
    once = "FAIL" if retries is None else "COMPLETE"
    assert states(farm) == ["COMPLETE", once, "COMPLETE", "FAIL", "COMPLETE"]
    attempts = 1 + (retries or 0)
    slots = "SELECT exceptions, token FROM hpo_slots WHERE number"
    assert farm.query(f"{slots} = 1") == [(1, attempts)]
    assert farm.query(f"{slots} = 3") == [(attempts, attempts)]
    assert attribute(farm, 3, "reason") == "exception: RuntimeError: bad luck"
    assert attribute(farm, 3, "traceback") == "Traceback: ..."


def test_row_21_a_trial_that_diverges_is_recorded(sqlite_farm: Farm) -> None:
    farm = sqlite_farm
    submit(farm, {"trials": 4}, diverging=[2])
    farm.workers(2)
    farm.leave()
    assert states(farm) == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert attribute(farm, 2, "reason") == "diverged: loss became nan in epoch 3"
    # Should the others fail, it is the best.
    assert attribute(farm, 2, "checkpoint").endswith("/epoch-00002.1.zip")
    assert attribute(farm, 2, "best_epoch") == 2
    assert farm.query("SELECT max(token) FROM hpo_slots") == [(1,)]


def test_row_21_the_same_failure_again_and_again_stops_the_study(sqlite_farm: Farm) -> None:
    farm = sqlite_farm
    raising = {str(number): 9 for number in range(2, 12)}
    submit(farm, {"trials": 12, "max_consecutive_failures": 3}, raising=raising)
    farm.worker()
    farm.leave()
    assert states(farm) == ["COMPLETE"] * 2 + ["FAIL"] * 3
    reason = "the last 3 trials failed alike: exception: RuntimeError: bad luck"
    assert farm.query("SELECT state, reason FROM hpo_studies") == [("stopped", reason)]


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ("data", "data fingerprint"),
        ("builder", "builder source"),
        ("optuna", "Optuna major version"),
        ("keras", "Keras major version"),
    ],
)
def test_a_worker_that_does_not_fit_refuses_to_join(
    sqlite_farm: Farm, fact: str, words: str
) -> None:
    farm = sqlite_farm
    here = getattr(FACTS, fact)
    farm.submit(fake_spec(), dataclasses.replace(FACTS, **{fact: "another"}))
    worker = farm.worker()
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 2
    assert f"{words}: the study has another, here it is {here}" in errors
    assert errors.count("the study has") == 1
    assert farm.query("SELECT count(*) FROM trials") == [(0,)]
    assert farm.query("SELECT count(*) FROM hpo_workers") == [(0,)]
    assert farm.query("SELECT DISTINCT state FROM hpo_slots") == [("free",)]


@pytest.mark.parametrize(("dying", "code"), [(2, 0), (3, 1)])
def test_row_08_trainers_that_die_while_they_prepare(
    sqlite_farm: Farm, dying: int, code: int
) -> None:
    farm = sqlite_farm
    submit(farm, {"trials": 2}, dying=dying)
    worker = farm.worker()
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == code
    assert errors.count("the trainer process was killed by SIGKILL") >= dying
    assert states(farm) == (["COMPLETE"] * 2 if code == 0 else [])
    assert farm.query("SELECT count(*) FROM hpo_slots WHERE state = 'leased'") == [(0,)]


@pytest.mark.parametrize(
    ("statement", "leases"),
    [
        pytest.param("INSERT INTO trial_values", 1, id="idle"),
        pytest.param("UPDATE hpo_slots", 2, id="just leased"),
    ],
)
def test_row_08_a_trainer_that_dies_between_trials(
    sqlite_farm: Farm, statement: str, leases: int
) -> None:
    """No trial is to blame for it."""
    farm = sqlite_farm
    submit(farm, {"trials": 3, "retries": {"crash": 0}})
    worker = farm.worker("--die-at", statement, "--whom", "trainer")
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    assert states(farm) == ["COMPLETE"] * 3
    assert farm.query("SELECT max(token), sum(crashes) FROM hpo_slots") == [(leases, 0)]


def test_row_08_a_trainer_that_dies_between_two_trials(sqlite_farm: Farm) -> None:
    """The system may need an idle trainer's memory: no trial is to blame, the worker goes on."""
    farm = sqlite_farm
    submit(farm, {"trials": 4, "retries": {"crash": 9}}, dying_after=[0, 1, 2])
    farm.worker()
    farm.leave()
    assert states(farm) == ["COMPLETE"] * 4


def test_row_25_a_trial_that_is_new_takes_nothing_from_an_older_study(sqlite_farm: Farm) -> None:
    """The database was deleted, the artifacts were not; the next study has the old one's name."""
    farm = sqlite_farm
    submit(farm, {"trials": 3})
    farm.worker()
    farm.leave()
    for path in (farm.folder / "epochs.log", *farm.folder.glob("hpo.db*")):
        path.unlink()
    assert list(farm.folder.glob("artifacts/faults/trial-*/epoch-*.zip"))
    submit(farm, {"trials": 3}, numbers=4)
    farm.worker()
    farm.leave()
    farm.check_end(0)


def test_a_function_that_draws_other_rows_is_named(sqlite_farm: Farm) -> None:
    farm = sqlite_farm
    data = {"source": {"type": "python", "load": "my_data:load"}}
    farm.submit(fake_spec(data=data), dataclasses.replace(FACTS, data="another"))
    _, errors = farm.worker().communicate(timeout=60)
    assert "my_data:load must return the same rows each time it is called" in errors
