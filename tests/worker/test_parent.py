"""A worker that was started by `hpo run` waits for its word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpo.launch.local import LaunchOptions, LocalWorkers
from hpo.worker.parent import BEGIN


def _worker(folder: Path, said: bytes) -> subprocess.CompletedProcess[bytes]:
    storage = f"sqlite:///{folder / 'hpo.db'}"
    command = [sys.executable, "-m", "hpo", "worker", "small", "--with-parent"]
    command += ["--storage", storage, "--project", str(folder)]
    return subprocess.run(command, input=said, capture_output=True, check=False)


def test_it_touches_nothing_before_that(tmp_path: Path) -> None:
    ended = _worker(tmp_path, said=b"")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert list(tmp_path.iterdir()) == []


def test_it_looks_for_its_study_then(tmp_path: Path) -> None:
    ended = _worker(tmp_path, said=BEGIN)
    assert ended.returncode == 3
    assert b"create the study with: hpo submit" in ended.stderr


def test_workers_that_never_began_leave_with_an_error_of_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    options = LaunchOptions("small", url, tmp_path, str(tmp_path), 2, 30.0, None)
    before = set(psutil.Process().children())

    def fail() -> None:
        with LocalWorkers(options):
            assert len(set(psutil.Process().children()) - before) == 2
            raise ValueError("the study file is wrong")

    with pytest.raises(ValueError, match="the study file is wrong"):
        fail()
    assert set(psutil.Process().children()) <= before
    assert list(tmp_path.iterdir()) == []
