"""Trainer processes: forked or spawned, asked, refused, killed, and gone with their owners."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpo import errors
from hpo.worker import trainers as trainers_module
from hpo.worker.forkserver import start_forkserver
from hpo.worker.messages import Call
from hpo.worker.trainers import Trainer, TrainerDiedError, Trainers
from tests.conftest import wait_for

pytestmark = pytest.mark.keras


@pytest.fixture
def trainer(forkserver: str) -> Iterator[Trainer]:
    started = Trainers(forkserver).start()
    yield started
    started.kill()


def test_a_call_returns_what_the_function_returns(trainer: Trainer) -> None:
    assert trainer.call("os:getpid") == trainer.pid != os.getpid()


def test_a_trainer_begins_where_its_client_is(
    forkserver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started = Trainers(forkserver).start()
    assert started.call("os:getcwd") == str(tmp_path)
    started.kill()


def test_an_error_of_ours_comes_back_as_itself(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="no exported bundle"):
        trainer.call(
            "hpo.export.predict:predict_file", bundle=tmp_path, file=tmp_path / "x", array="x"
        )
    assert trainer.call("os:getpid") == trainer.pid


def test_any_other_error_comes_back_with_its_traceback(trainer: Trainer) -> None:
    with pytest.raises(errors.HpoError, match="FileNotFoundError") as caught:
        trainer.call("os:listdir", path="/no/such/folder")
    assert "Traceback" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGKILL, "SIGKILL"),
        # A real-time signal.
        (35, "signal 35"),
    ],
)
def test_a_killed_trainer_says_by_what(trainer: Trainer, number: int, name: str) -> None:
    os.kill(trainer.pid, number)
    with pytest.raises(TrainerDiedError, match=f"was killed by {name}"):
        trainer.call("os:getpid")


def test_a_trainer_that_exits_says_with_what_code(trainer: Trainer) -> None:
    with pytest.raises(TrainerDiedError, match="exited with code 7"):
        trainer.call("os:_exit", status=7)


def test_output_goes_to_the_log(forkserver: str, tmp_path: Path) -> None:
    started = Trainers(forkserver).start(tmp_path / "logs" / "one.log")
    started.call("os:system", command="echo printed by the builder")
    started.kill()
    assert (tmp_path / "logs" / "one.log").read_text() == "printed by the builder\n"


BUSY = """
import time
from pathlib import Path
Path("busy").touch()
time.sleep(600)
"""


def test_kill_ends_a_trainer_that_is_busy(
    forkserver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("busy.py").write_text(BUSY)
    started = Trainers(forkserver).start()
    started.send(Call("runpy:run_path", {"path_name": "busy.py"}))
    wait_for(Path("busy").exists)
    started.kill()
    wait_for(lambda: not psutil.pid_exists(started.pid))


def test_kill_ends_a_trainer_that_hangs(forkserver: str) -> None:
    started = Trainers(forkserver).start()
    # That its pipe is closed it does not see.
    os.kill(started.pid, signal.SIGSTOP)
    started.kill()
    wait_for(lambda: not psutil.pid_exists(started.pid))


@pytest.mark.parametrize("end", ["killed", "leaves", "dies"])
def test_what_a_trainer_has_started_ends_with_it(end: str, forkserver: str, tmp_path: Path) -> None:
    """As a builder may start a program."""
    started = Trainers(forkserver).start()
    started.call("os:system", command=f"sleep 600 & echo $! > {tmp_path / 'pid'}")
    pid = int((tmp_path / "pid").read_text())
    if end == "leaves":
        started._connection.close()
    elif end == "dies":
        os.kill(started.pid, signal.SIGSEGV)
    else:
        started.kill()
    wait_for(lambda: not psutil.pid_exists(pid) or _is_dead(pid))
    started.kill()


def _is_dead(pid: int) -> bool:
    # Nobody may collect an orphan where the first process of a container does not.
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_trainers_of_one_server_are_independent(forkserver: str) -> None:
    first, second = Trainers(forkserver).start(), Trainers(forkserver).start()
    first.kill()
    assert second.call("os:getpid") == second.pid
    second.kill()


def test_a_server_that_is_gone_is_replaced(tmp_path: Path) -> None:
    trainers = Trainers(str(tmp_path / "nobody-listens"))
    started = trainers.start()
    assert started.call("os:getpid") == started.pid
    started.kill()
    trainers.close()


def test_a_spawned_trainer_does_the_same(tmp_path: Path) -> None:
    started = trainers_module._spawn(tmp_path / "one.log")
    assert started.call("os:getpid") == started.pid
    os.kill(started.pid, signal.SIGKILL)
    with pytest.raises(TrainerDiedError, match="SIGKILL"):
        started.call("os:getpid")


OWNER = """
import sys, time
from hpo.worker.forkserver import start_forkserver
server = start_forkserver()
print(server.pid, server.address, flush=True)
time.sleep(600)
"""


def test_the_server_ends_with_its_owner_however_that_ends() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid, address = owner.stdout.readline().split()
    shared = Trainers(address).shared
    assert shared is not None
    shared.mkdir()
    (shared / "one").touch()
    owner.kill()
    owner.communicate()
    wait_for(lambda: not psutil.pid_exists(int(pid)))
    assert not Path(address).parent.exists()


def test_closing_a_server_leaves_no_file() -> None:
    server = start_forkserver()
    folder = Path(server.address).parent
    assert folder.is_dir()
    server.close()
    assert not folder.exists()
