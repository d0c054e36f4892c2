from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpo.artifacts import Place, list_folder, open_artifacts
from hpo.errors import ArtifactsError
from hpo.training.checkpoints import Checkpoint, CheckpointFolder, load_checkpoint
from tests.conftest import wait_for

WEIGHTS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]
OPTIMIZER = [np.int64(7), np.zeros((2, 3), np.float32)]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty folder for checkpoints, on this machine and on an object store."""
    if request.param == "local":
        return tmp_path
    return open_artifacts(f"{request.getfixturevalue('bucket')}/artifacts")


def save(folder: CheckpointFolder, epoch: int, best: int | None = None) -> Place:
    weights = [array + epoch for array in WEIGHTS]
    return folder.save(epoch, weights, OPTIMIZER, {"best_epoch": best or epoch, "note": [1.5]})


def names(folder: Place) -> list[str]:
    return sorted(path.name for path in list_folder(folder))


def test_what_is_saved_is_read_back(place: Place) -> None:
    path = save(CheckpointFolder(place / "trial", 1), 3)
    found = load_checkpoint(path)
    assert found is not None
    assert (found.epoch, found.progress) == (3, {"best_epoch": 3, "note": [1.5]})
    for one, other in zip(found.weights, WEIGHTS, strict=True):
        np.testing.assert_array_equal(one, other + 3)
        assert one.dtype == other.dtype
    assert [array.dtype for array in found.optimizer] == [np.int64, np.float32]


def test_bfloat16_is_read_back_with_the_same_values(tmp_path: Path) -> None:
    # The package comes with Keras.
    ml_dtypes = pytest.importorskip("ml_dtypes")
    weight = np.linspace(-3, 3, 7).astype(ml_dtypes.bfloat16)
    folder = CheckpointFolder(tmp_path, 1)
    found = load_checkpoint(folder.save(1, [weight], [weight[:2], np.int64(7)], {}))
    assert found is not None
    assert [array.dtype for array in found.optimizer] == [np.float32, np.int64]
    np.testing.assert_array_equal(found.weights[0].astype(weight.dtype), weight)
    np.testing.assert_array_equal(found.optimizer[0], weight[:2].astype(np.float32))


def test_a_variable_without_numbers_is_one_too(tmp_path: Path) -> None:
    arrays = [np.zeros((0, 3), np.float32), np.ones((), np.float32), np.zeros(0, np.int64)]
    found = load_checkpoint(CheckpointFolder(tmp_path, 1).save(1, arrays, [], {}))
    assert found is not None
    assert [(array.shape, array.dtype) for array in found.weights] == [
        (array.shape, array.dtype) for array in arrays
    ]


def test_nothing_saved_yet(place: Place) -> None:
    assert CheckpointFolder(place / "none", 1).latest() is None
    assert names(place) == []


def truncate(path: Place) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def corrupt(path: Place) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def empty(path: Place) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, corrupt, empty])
def test_a_damaged_newest_file_is_passed_over(
    place: Place, damage: Callable[[Place], None]
) -> None:
    folder = CheckpointFolder(place, 1)
    save(folder, 1)
    damage(save(folder, 2))
    assert latest(folder).epoch == 1


def latest(folder: CheckpointFolder) -> Checkpoint:
    found = folder.latest()
    assert found is not None
    return found


def test_damage_at_any_byte_never_goes_unnoticed(tmp_path: Path) -> None:
    path = save(CheckpointFolder(tmp_path, 1), 1)
    good = path.read_bytes()
    for index in range(0, len(good), 3):
        path.write_bytes(good[:index] + bytes([good[index] ^ 0x81]) + good[index + 1 :])
        found = load_checkpoint(path)
        # Some bytes, such as a time stamp, say nothing.
        assert found is None or np.array_equal(found.weights[0], WEIGHTS[0] + 1)


def test_an_epoch_whose_best_is_damaged_is_passed_over(place: Place) -> None:
    folder = CheckpointFolder(place, 1)
    save(folder, 1)
    truncate(save(folder, 2))
    save(folder, 3, best=2)
    assert latest(folder).epoch == 1


def test_a_new_lease_adopts_the_best(place: Place) -> None:
    before, after = CheckpointFolder(place, 4), CheckpointFolder(place, 5)
    save(before, 2)
    save(before, 3, best=2)
    assert latest(after).epoch == 3
    assert after.path(2).name in names(place)
    # The lease before may go on deleting; the adopted file is out of its reach.
    before.keep_only({9})
    assert names(place) == [after.path(2).name, after.path(3).name]
    # Also when this lease ends without an epoch of its own.
    assert latest(CheckpointFolder(place, 6)).epoch == 3
    adopted = load_checkpoint(after.path(2))
    assert adopted is not None
    np.testing.assert_array_equal(adopted.weights[0], WEIGHTS[0] + 2)


def test_a_stale_writer_does_not_hurt_its_successor(place: Place) -> None:
    stale, successor = CheckpointFolder(place, 1), CheckpointFolder(place, 2)
    save(stale, 1)
    successor.latest()
    save(successor, 2)
    successor.keep_only({2})
    save(stale, 7)
    stale.keep_only({7})
    assert latest(CheckpointFolder(place, 3)).epoch == 2


def test_keep_only_removes_files_of_this_lease_and_before(place: Place) -> None:
    folders = [CheckpointFolder(place, token) for token in (1, 2, 3)]
    for folder in folders:
        for epoch in (1, 2):
            save(folder, epoch)
    (place / "epoch-00009.2.tmp").touch()
    (place / "notes.txt").touch()
    folders[1].keep_only({2})
    kept = [folders[1].path(2), folders[2].path(1), folders[2].path(2)]
    assert names(place) == sorted([*(path.name for path in kept), "notes.txt"])


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, 1)
    save(folder, 1)
    folder.path(2).mkdir()
    with pytest.raises(ArtifactsError, match="epoch-00002"):
        save(folder, 2)
    folder.path(2).rmdir()
    assert names(tmp_path) == [folder.path(1).name]


WRITER = """
import sys
import numpy as np
from hpo.artifacts import open_artifacts
from hpo.training.checkpoints import CheckpointFolder

folder = CheckpointFolder(open_artifacts(sys.argv[1]), 1)
for epoch in range(1, 10000):
    weights = [np.full(200_000, epoch, np.float32) for _ in range(3)]
    folder.save(epoch, weights, [], {"best_epoch": epoch})
    folder.keep_only({epoch})
"""


@pytest.mark.parametrize("patience", [0.0, 0.013, 0.051])
def test_a_killed_writer_leaves_the_newest_whole(place: Place, patience: float) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(place)])
    wait_for(lambda: any(name.endswith(".zip") for name in names(place)), pause=0.002)
    time.sleep(patience)  # not waiting: each is killed at another moment
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    found = latest(CheckpointFolder(place, 2))
    assert all((weights == found.epoch).all() for weights in found.weights)
    assert len(found.weights) == 3
