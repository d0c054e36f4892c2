"""Local workers: started, replaced and ended. Their database is away, so they wait for it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hpo.launch import local as local_module
from hpo.launch.local import LaunchOptions, LocalWorkers, WorkersFailedError
from tests.conftest import wait_for

Deaths = list[str]


@pytest.fixture
def options(tmp_path: Path) -> LaunchOptions:
    url = "postgresql://nobody@127.0.0.1:9/nothing"
    return LaunchOptions("small", url, tmp_path, str(tmp_path), 2, 30.0, "unused", db_timeout=600)


@pytest.fixture(params=[True, False], ids=["forked", "spawned"])
def _forking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_module, "FORKING", request.param)


@pytest.fixture
def begun() -> Iterator[Callable[[LaunchOptions], tuple[LocalWorkers, Deaths]]]:
    with contextlib.ExitStack() as stack:

        def begin(options: LaunchOptions) -> tuple[LocalWorkers, Deaths]:
            local, deaths = stack.enter_context(LocalWorkers(options)), Deaths()
            local.begin(deaths.append)
            return local, deaths

        yield begin


Begin = Callable[[LaunchOptions], tuple[LocalWorkers, Deaths]]


def found() -> dict[str, psutil.Process]:
    """Workers below this process by their names, as `ps` shows them."""
    workers = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "--name" in words:
                workers[words[words.index("--name") + 1]] = process
    return workers


def two() -> dict[str, psutil.Process] | None:
    workers = found()
    return workers if len(workers) == 2 else None


def catches(number: signal.Signals, pid: int) -> bool:
    mask = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(mask, 16) & 1 << (number - 1))


@pytest.mark.usefixtures("_forking")
def test_they_start_are_replaced_and_leave(options: LaunchOptions, begun: Begin) -> None:
    local, deaths = begun(options)
    before = wait_for(two)
    for process in before.values():
        assert {"worker", "small", "--with-parent"} <= set(process.cmdline())
    assert local.tend(0)
    killed = min(before)
    before[killed].kill()
    wait_for(lambda: local.tend(0) and bool(deaths))
    assert deaths == [killed]
    after = wait_for(two)
    assert len(before.keys() & after.keys()) == 1
    for process in after.values():
        wait_for(lambda process=process: catches(signal.SIGTERM, process.pid))
    local.stop()
    # They have left by themselves, so nobody mourns them.
    assert deaths == [killed]
    assert found() == {}


def test_a_killed_server_takes_its_workers_along(options: LaunchOptions, begun: Begin) -> None:
    local, deaths = begun(options)
    before = wait_for(two)
    [server] = psutil.Process(min(before.values(), key=lambda each: each.pid).pid).parents()[:1]
    server.kill()
    wait_for(lambda: local.tend(0) and len(deaths) == 2)
    assert sorted(deaths) == sorted(before)
    after = wait_for(two)
    assert not before.keys() & after.keys()
    for process in before.values():
        wait_for(lambda process=process: not process.is_running() or process.status() == "zombie")


@pytest.mark.usefixtures("_forking")
def test_an_error_of_a_worker_is_repeated(
    options: LaunchOptions, begun: Begin, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "workers.log"
    local, _ = begun(replace(options, url=f"sqlite:///{tmp_path / 'hpo.db'}", log=log))
    with pytest.raises(WorkersFailedError, match=r"exit code 3; its last words, in .*hpo submit"):
        wait_for(lambda: not local.tend(0))
    assert "create the study with: hpo submit" in log.read_text()


def test_a_server_that_cannot_start(
    options: LaunchOptions, begun: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sqlalchemy.py").write_text("raise ImportError('error: half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkersFailedError, match=r"no worker can be started; .*half installed"):
        begun(replace(options, log=tmp_path / "workers.log"))


def test_workers_that_never_began_leave_with_an_error_of_the_study(
    options: LaunchOptions, tmp_path: Path
) -> None:
    before = set(psutil.Process().children())

    def fail() -> None:
        with LocalWorkers(options):
            assert len(set(psutil.Process().children()) - before) == 1
            raise ValueError("the study file is wrong")

    with pytest.raises(ValueError, match="the study file is wrong"):
        fail()
    assert set(psutil.Process().children()) <= before
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_hangs_is_killed(options: LaunchOptions, begun: Begin) -> None:
    local, deaths = begun(replace(options, workers=1))
    [(name, process)] = wait_for(lambda: found() or None).items()
    os.kill(process.pid, signal.SIGSTOP)
    local.stop()
    assert deaths == [name]
    assert not process.is_running()
