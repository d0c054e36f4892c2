"""No GPU is needed: processes are real, and where TensorFlow is asked it is told of two GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpo.training.gpus import gpu_names, take_gpu

Take = Callable[..., "Taker"]

TAKES = """
import sys
from pathlib import Path
from hpo.training.gpus import take_gpu

print(take_gpu(sys.argv[2:], Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

# As on a machine with so many GPUs, none of which is ever used.
SHARES = """
import sys
import tensorflow as tf
from tensorflow.python.eager import context
from hpo.training.gpus import share_gpus, used_device

now = context.context()
now.list_physical_devices()
names = [f"/physical_device:GPU:{number}" for number in range(int(sys.argv[1]))]
gpus = [context.PhysicalDevice(name, "GPU") for name in names]
now._physical_devices += gpus
now._visible_device_list += gpus
now._memory_growth_map |= dict.fromkeys(gpus)

counted = sys.argv[2] == "counted"
share_gpus(counted=counted)
share_gpus(counted=counted)
print(used_device(), [now.get_memory_growth(gpu) for gpu in gpus], flush=True)
"""

FORKS = """
import os, signal, sys
from pathlib import Path
from hpo.training.gpus import take_gpu

take_gpu(["0", "1"], Path(sys.argv[1]))
if os.fork():
    signal.pause()
# Said by the child, so that what it does after a fork is done.
print(os.getpid(), flush=True)
sys.stdin.read()
"""

# The child's files have the numbers of those that it has closed, that of the GPU's among them.
FORKS_AGAIN = """
import os, sys
from pathlib import Path
from hpo.training.gpus import take_gpu

take_gpu(["0", "1"], Path(sys.argv[1]))
if os.fork() == 0:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(9)]
    if os.fork() == 0:
        print(len([os.fstat(number) for number in files]), flush=True)
    else:
        os.wait()
else:
    os.wait()
"""


class Taker:
    """A process that has taken a GPU."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TAKES, folder, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def index(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Take]:
    with ExitStack() as ends:

        def start(*names: str) -> Taker:
            taker = Taker(tmp_path / "gpus", names)
            ends.callback(taker.kill)
            return taker

        yield start


def test_all_gpus_get_equally_many_processes_and_those_of_the_dead_come_first(take: Take) -> None:
    takers = [take("0", "1", "2") for _ in range(6)]
    found = [(taker.index, taker) for taker in takers]
    assert Counter(index for index, _ in found) == {0: 2, 1: 2, 2: 2}
    for index, taker in found:
        if index == 1:
            taker.kill()
    assert [take("0", "1", "2").index for _ in range(3)] == [1, 1, 0]


def test_a_process_that_sees_some_of_the_gpus_counts_on_those(take: Take) -> None:
    assert take("2").index == 0
    assert take("MIG-GPU-1/2/0", "2").index == 0
    assert take("MIG-GPU-1/2/0", "2").index == 0
    assert take("MIG-GPU-1/2/0", "2").index == 1


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ["0", "1"]),
        ("", ["0", "1"]),
        ("3, 1", ["3", "1"]),
        # What CUDA does not take for a GPU ends its list.
        ("3,1,-1", ["3", "1"]),
    ],
)
def test_names(monkeypatch: pytest.MonkeyPatch, given: str | None, names: list[str]) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpu_names(2) == names


def test_who_only_asks_is_not_counted(tmp_path: Path, take: Take) -> None:
    folder = tmp_path / "gpus"
    assert [take_gpu(["0", "1"], folder, counted=False) for _ in range(3)] == [0, 0, 0]
    assert take("0", "1").index == 0
    assert take_gpu(["0", "1"], folder, counted=False) == 1


def test_a_process_that_the_user_s_code_has_forked_keeps_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "gpus"
    forking = subprocess.Popen(
        [sys.executable, "-c", FORKS, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert forking.stdout is not None
    child = int(forking.stdout.readline())
    assert take_gpu(["0", "1"], folder, counted=False) == 1
    forking.kill()
    forking.wait()
    os.kill(child, 0)
    assert take_gpu(["0", "1"], folder, counted=False) == 0
    # Ends the child.
    forking.communicate()


def test_what_it_forks_itself_keeps_its_own_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS_AGAIN, tmp_path / "gpus"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("9\n", "")


def share(
    folder: Path, gpus: int, how: str, visible: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "-1"}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    return subprocess.run(
        [sys.executable, "-c", SHARES, str(gpus), how],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.keras
def test_tensorflow_uses_the_gpu_that_was_taken_and_of_its_memory_what_it_needs(
    tmp_path: Path,
) -> None:
    folder = tmp_path / f"keras-hpo-gpus-{os.getuid()}"
    taker = Taker(folder, ("0", "1"))
    try:
        assert taker.index == 0
        done = share(tmp_path, 2, "counted")
        assert done.stdout == "GPU:1 [None, True]\n", done.stderr
        # Made, and left by a process that has ended.
        assert len(list(folder.glob("1.*"))) == 1
        done = share(tmp_path, 1, "asked", visible="7")
        assert done.stdout == "GPU:7 [True]\n", done.stderr
        assert not list(folder.glob("7.*"))
    finally:
        taker.kill()


@pytest.mark.keras
def test_a_folder_that_can_not_be_used(tmp_path: Path) -> None:
    folder = tmp_path / f"keras-hpo-gpus-{os.getuid()}"
    folder.touch()
    done = share(tmp_path, 1, "counted")
    assert done.returncode == 1
    assert f"{folder}, which says what GPU" in done.stderr
    assert "File exists; remove it, or set TMPDIR" in done.stderr
