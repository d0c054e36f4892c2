"""`hpo dashboard`: the real optuna-dashboard over HTTP, read-only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.end_to_end.conftest import Project

pytestmark = pytest.mark.keras


@contextmanager
def dashboard(project: Project, *options: str) -> Iterator[str]:
    """The address of a dashboard that runs."""
    server = project.start("dashboard", "--port", "0", *options)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip().rstrip("/")
    finally:
        server.terminate()
        server.communicate()


@pytest.fixture(scope="module")
def url(finished: Project) -> Iterator[str]:
    with dashboard(finished) as address:
        yield address


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        content: bytes = answer.read()
        return content


def status_of(url: str, method: str) -> int:
    request = urllib.request.Request(url, data=b"{}", method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def study(url: str) -> dict[str, Any]:
    [summary] = json.loads(get(f"{url}/api/studies"))["study_summaries"]
    assert summary["study_name"] == "small"
    found: dict[str, Any] = json.loads(get(f"{url}/api/studies/{summary['study_id']}?after=0"))
    return found | {"study_id": summary["study_id"]}


def test_the_pages_are_served(url: str) -> None:
    assert b"optuna" in get(f"{url}/dashboard/").lower()


def test_the_best_trial_is_found_with_its_parameters(
    finished: Project, study: dict[str, Any]
) -> None:
    best = json.loads(finished.hpo("best", "--json").stdout)
    trials = {trial["number"]: trial for trial in study["trials"]}
    assert len(trials) == 8
    shown = trials[best["number"]]
    assert shown["values"] == [best["value"]]
    names = {param["name"] for param in shown["params"]}
    assert names == set(best["params"])


def test_a_part_of_a_larger_study_with_the_best_trial_in_it(finished: Project) -> None:
    with dashboard(finished, "--trials", "5") as url:
        [summary] = json.loads(get(f"{url}/api/studies"))["study_summaries"]
        shown = json.loads(get(f"{url}/api/studies/{summary['study_id']}?after=0"))
        table = get(f"{url}/csv/{summary['study_id']}").decode().splitlines()
    assert len(table) == 1 + 8
    assert summary["study_name"] == "small (3 trials not shown)"
    assert len(shown["trials"]) == 5
    assert shown["note"]["body"].startswith("**3 trials are not shown**")
    assert "hpo worker small" in shown["note"]["body"]
    best = json.loads(finished.hpo("best", "--json").stdout)
    assert best["number"] in [trial["number"] for trial in shown["trials"]]


def test_pictures_and_tables_of_a_trial_can_be_fetched(url: str, study: dict[str, Any]) -> None:
    trial = study["trials"][0]
    contents = {
        artifact["filename"]: get(
            f"{url}/artifacts/{study['study_id']}/{trial['trial_id']}/{artifact['artifact_id']}"
        )
        for artifact in trial["artifacts"]
    }
    assert contents["learning-curve.png"].startswith(b"\x89PNG")
    assert contents["history.csv"].startswith(b"epoch,")


def test_the_study_s_note_says_how_to_join_and_to_export(study: dict[str, Any]) -> None:
    assert "hpo worker small" in study["note"]["body"]
    assert "hpo export small" in study["note"]["body"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/studies"),
        ("DELETE", "/api/studies/1"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/trials/1/tell"),
    ],
)
def test_a_write_is_forbidden(finished: Project, url: str, method: str, path: str) -> None:
    assert status_of(url + path, method) == 403
    assert json.loads(finished.hpo("status", "--json").stdout)["finished"] == 8


def test_a_taken_port_is_one_clear_message(finished: Project, url: str) -> None:
    port = url.rpartition(":")[2]
    done = finished.hpo("dashboard", "--port", port)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr
