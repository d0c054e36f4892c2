"""`hpo run` with its artifacts on an object store and on a disk that is full for a while."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.artifacts import list_folder, open_artifacts
from hpo.worker.forkserver import start_forkserver
from tests.conftest import fill_disk, wait_for
from tests.end_to_end.conftest import Project, study_content

pytestmark = [pytest.mark.keras, pytest.mark.slow]


@pytest.fixture
def project(tmp_path: Path, bucket: str) -> Iterator[Project]:
    """Its trainers know the object store: they have their fork server's environment."""
    server = start_forkserver()
    content = study_content()
    content["search"]["trials"] = 4
    made = Project(tmp_path, server.address)
    made.write(content)
    yield made
    server.close()


@pytest.mark.long
def test_run_and_export_on_an_object_store(project: Project, bucket: str) -> None:
    place = ("--artifacts", f"{bucket}/study")
    done = project.hpo("run", "study.yaml", "--no-export", *place)
    assert done.returncode == 0, done.stderr
    checkpoints = list_folder(open_artifacts(f"{bucket}/study/small"))
    assert len(checkpoints) == 3
    assert [len(list_folder(folder)) for folder in checkpoints] == [1, 1, 1]
    assert len(list_folder(open_artifacts(f"{bucket}/study/files"))) == 8
    # What is local are the logs that hold something.
    local = [path for path in (project.folder / "artifacts").rglob("*") if path.is_file()]
    assert {path.suffix for path in local if path.stat().st_size} <= {".log"}
    done = project.hpo("export", *place)
    assert done.returncode == 0, done.stderr
    assert (project.folder / "bundles" / "small" / "model.keras").is_file()
    check_dashboard(project, place)


def check_dashboard(project: Project, place: tuple[str, ...]) -> None:
    server = project.start("dashboard", "--port", "0", *place)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip().rstrip("/")
        study = json.loads(get(f"{url}/api/studies/1?after=0"))
        trial = study["trials"][0]
        for artifact in trial["artifacts"]:
            picture = get(f"{url}/artifacts/1/{trial['trial_id']}/{artifact['artifact_id']}")
            assert picture.startswith((b"\x89PNG", b"epoch,"))
        assert len(trial["artifacts"]) == 2
    finally:
        server.terminate()
        server.communicate()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
        return content


@pytest.mark.long
def test_a_bucket_that_is_not_there_stops_run(project: Project, bucket: str) -> None:
    done = project.hpo("run", "study.yaml", "--artifacts", f"{bucket}-of-somebody")
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "bucket does not exist" in done.stderr


@pytest.mark.long
def test_row_20_run_on_a_full_disk(project: Project, small_disk: Path) -> None:
    place = ("--artifacts", str(small_disk / "artifacts"))
    run = project.start("run", "study.yaml", "--no-export", *place)
    ballast = small_disk / "ballast"

    def has_ended() -> bool:
        fill_disk(ballast)
        return run.poll() is not None

    saved = "artifacts/small/trial-*/*.zip"
    # Where it has left too early, it says below why.
    wait_for(lambda: any(small_disk.glob(saved)) or run.poll() is not None)
    wait_for(has_ended)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "No space left on device; make room there" in output
    assert "a worker ended with exit code 1" in output
    assert "Traceback" not in output
    ballast.unlink()
    done = project.hpo("run", "study.yaml", "--no-export", *place)
    assert done.returncode == 0, done.stderr
    status = json.loads(project.hpo("status", "--json").stdout)
    assert (status["finished"], status["failed"]) == (4, 0)
