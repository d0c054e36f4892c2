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

# As on a machine with two GPUs, none of which is ever used.
SHARES = """
import tensorflow as tf
from tensorflow.python.eager import context
from hpo.training.gpus import share_gpus, used_device

now = context.context()
now.list_physical_devices()
gpus = [context.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in (0, 1)]
now._physical_devices += gpus
now._visible_device_list += gpus
now._memory_growth_map |= dict.fromkeys(gpus)

share_gpus()
share_gpus()
print(used_device(), [now.get_memory_growth(gpu) for gpu in gpus])
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


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_names(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu_names(2) == ["3", "1"]
    # What CUDA does not take for a GPU ends its list.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,-1")
    assert gpu_names(2) == ["3", "1"]


def test_a_folder_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "gpus").touch()
    with pytest.raises(OSError, match="gpus"):
        take_gpu(["0", "1"], tmp_path / "gpus")


@pytest.mark.keras
def test_tensorflow_uses_the_gpu_that_was_taken_and_of_its_memory_what_it_needs(
    tmp_path: Path,
) -> None:
    taker = Taker(tmp_path / f"keras-hpo-gpus-{os.getuid()}", ("0", "1"))
    try:
        assert taker.index == 0
        done = subprocess.run(
            [sys.executable, "-c", SHARES],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        taker.kill()
    assert done.stdout == "GPU:1 [None, True]\n", done.stderr
