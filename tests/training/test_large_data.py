"""Data that is larger than the memory that a trainer may use, and trainers that share it.

All data here is generated: numbers at random, and classes that a few of them tell apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from hpo.training.channel import Begun, TrialTask
from hpo.worker.forkserver import start_forkserver
from hpo.worker.messages import Answer, Finished, Prepare, Report
from hpo.worker.trainers import Trainer, Trainers
from tests.conftest import ROOT
from tests.training.trials import BUILDERS, make_spec

pytestmark = pytest.mark.keras

MEGABYTE = 2**20
FEATURES = 16_000
DATA = {
    "source": {"type": "npy", "x": "x.npy", "y": "y.npy"},
    "preprocess": {"normalize": "standard"},
    "split": {"validation": 0.1, "test": 0.1},
}
TRAINING = {"epochs": 2, "batch_size": 64, "optimizer": "sgd", "learning_rate": 1e-3}

# Trains one trial; with a limit the process may claim so much private memory, in all, and not a
# byte more: heaps, stacks and anonymous mappings, but not read-only maps of files.
TRAIN = """
import hashlib, resource, sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from hpo.training.channel import TrialTask
from hpo.training.checkpoints import load_checkpoint
from hpo.training.bench import prepare
from hpo.training.trial import run_trial
from tests.training import test_large_data as here
from tests.training.trials import MemoryChannel, make_spec

project, checkpoints, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
# As for a trainer of one of many workers: each thread reserves memory of its own.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.experimental.enable_op_determinism()
if limit:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
bench = prepare(make_spec(data=here.DATA, training=here.TRAINING), project)
channel = MemoryChannel()
end = run_trial(bench, TrialTask(0, seed=1, token=1, folder=checkpoints, reported=0), channel)
weights = hashlib.sha256()
for weight in load_checkpoint(end.checkpoint).weights:
    weights.update(weight.tobytes())
train = bench.data.train.x
print(train.nbytes, sorted(channel.reports.items()), weights.hexdigest())
"""


def write_data(folder: Path, rows: int) -> None:
    """Bytes that become four times as large when they are prepared."""
    rng = np.random.default_rng(0)
    y = np.arange(rows) % 3
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.uint8, (rows, FEATURES))
    for row in range(rows):
        x[row] = rng.integers(0, 200, FEATURES, np.uint8)
        x[row, :100] += np.uint8(20 * y[row])
    np.save(folder / "y.npy", y)
    (folder / "tiny.py").write_text(BUILDERS)


def train(
    project: Path, checkpoints: Path, cache: Path, limit: int
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(project), str(checkpoints), str(limit)],
        cwd=ROOT,
        env=os.environ | {"HPO_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's limit counts like that on Linux")
def test_data_larger_than_the_memory_of_a_trainer(tmp_path: Path) -> None:
    rows, limit = 14_000, 640 * MEGABYTE
    write_data(tmp_path, rows)
    no_folder = tmp_path / "no folder"
    no_folder.touch()

    streamed = train(tmp_path, tmp_path / "a", tmp_path / "cache", limit)
    assert streamed.returncode == 0, streamed.stderr
    assert int(streamed.stdout.split()[0]) > limit
    # That the limit holds: without the cache the data does not go into it.
    held = train(tmp_path, tmp_path / "b", no_folder, limit)
    assert held.returncode != 0
    assert "Unable to allocate" in held.stderr
    # Without a limit it does, and trains to the same weights.
    unlimited = train(tmp_path, tmp_path / "c", no_folder, 0)
    assert unlimited.returncode == 0, unlimited.stderr
    assert unlimited.stdout == streamed.stdout


@pytest.fixture
def two_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Trainer, Trainer]]:
    # A server of its own, because trainers have its environment.
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    server = start_forkserver()
    starter = Trainers(server.address)
    trainers = starter.start(), starter.start()
    yield trainers
    for trainer in trainers:
        trainer.kill()
    server.close()


def begin(trainer: Trainer, task: TrialTask) -> None:
    trainer.send(task)
    assert isinstance(next_message(trainer), Begun)


def finish(trainer: Trainer) -> None:
    while not isinstance(message := next_message(trainer), Finished):
        assert isinstance(message, Report)
        trainer.send(Answer(prune=False))


def next_message(trainer: Trainer) -> object:
    message = trainer.receive(60)
    assert message is not None
    return message


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_trainers_of_a_machine_share_prepared_rows(
    two_trainers: tuple[Trainer, Trainer], tmp_path: Path
) -> None:
    write_data(tmp_path, 4000)
    spec = make_spec(data=DATA, training=TRAINING)
    for trainer in two_trainers:
        trainer.send(Prepare(spec.to_json(), tmp_path, 1))
    for trainer in two_trainers:
        next_message(trainer)
    before = [trainer.memory() for trainer in two_trainers]
    for number, trainer in enumerate(two_trainers):
        begin(trainer, TrialTask(number, number, 1, tmp_path / f"trial-{number}", 0))
    for trainer in two_trainers:
        finish(trainer)
    mapped = [mapped_files(trainer.pid) for trainer in two_trainers]
    assert mapped[0] == mapped[1]
    assert {file.stat().st_ino for file in (tmp_path / "cache").iterdir()} == set(mapped[0])
    # Every row was read, so every page of both parts is there, and none of them is private.
    size = (3200 + 400) * FEATURES * 4
    assert size <= sum(shared for shared, _ in mapped[0].values()) < size + MEGABYTE
    assert {private for _, private in mapped[0].values()} == {0}
    for trainer, least in zip(two_trainers, before, strict=True):
        assert trainer.memory() - least < size / 2
        assert psutil.Process(trainer.pid).memory_info().rss > trainer.memory() + size


def mapped_files(pid: int) -> dict[int, tuple[int, int]]:
    """By inode of what is mapped from the cache: bytes shared with others, and private ones."""
    found: dict[int, tuple[int, int]] = {}
    inode = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *words = line.split()
        if not first.endswith(":"):
            inode = int(words[3]) if "prepared-" in line else 0
        elif inode:
            shared, private = found.get(inode, (0, 0))
            size = 1024 * int(words[0]) if first[:-1].startswith(("Shared_", "Private_")) else 0
            if first.startswith("Shared_"):
                found[inode] = shared + size, private
            elif first.startswith("Private_"):
                found[inode] = shared, private + size
    return found
