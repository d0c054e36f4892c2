"""The GPUs of a machine, shared among its trainers: each uses the one that the fewest have.

TensorFlow computes on the first GPU that a process sees, and takes the memory of all of them.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hpo.errors import HpoError


@functools.cache
def share_gpus(*, counted: bool) -> None:
    """Has TensorFlow use one GPU, if there are any, and of its memory only what it needs.

    Done once a process, before its first operation.

    Args:
        counted: Whether those that come later count this process as one that uses its GPU.

    Raises:
        HpoError: The folder for temporary files can't be used.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    # Not below the home, which machines may share.
    folder = Path(tempfile.gettempdir()) / f"keras-hpo-gpus-{os.getuid()}"
    try:
        chosen = gpus[take_gpu(gpu_names(len(gpus)), folder, counted=counted)]
    except OSError as error:
        raise HpoError(
            f"{folder}, which says what GPU each trainer of this machine uses, can't be used: "
            f"{error.strerror}; remove it, or set TMPDIR to a folder that can be written to"
        ) from error
    tf.config.set_visible_devices(chosen, "GPU")
    tf.config.experimental.set_memory_growth(chosen, True)


def used_device() -> str:
    """`CPU`, or the GPU that this process uses by its name on this machine, such as `GPU:1`."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    used = tf.config.get_visible_devices("GPU")
    return f"GPU:{gpu_names(len(gpus))[gpus.index(used[0])]}" if used else "CPU"


def gpu_names(count: int) -> list[str]:
    """What the GPUs that this process sees are called on this machine, in TensorFlow's order."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = [name.strip() for name in given.split(",") if name.strip()][:count]
    return named if len(named) == count else [str(number) for number in range(count)]


def take_gpu(names: Sequence[str], folder: Path, *, counted: bool = True) -> int:
    """The index of the GPU that the fewest processes have taken; of equal ones the first.

    It is taken until this process ends, however it ends: what says so is the lock of a file, which
    the kernel takes back.

    Args:
        folder: Of the files, the same for all processes of a machine; made if it is not there.
        counted: Whether this process takes it, or only asks.

    Raises:
        OSError: The folder can't be used.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    plain = [re.sub(r"\W", "_", name) for name in names]
    with (folder / "choosing").open("wb") as choosing:
        # One process after the other, so that what it has counted stands until it has chosen.
        fcntl.flock(choosing, fcntl.LOCK_EX)
        users = [sum(map(_is_used, folder.glob(f"{name}.*"))) for name in plain]
        fewest = users.index(min(users))
        if counted:
            # Open, and with it locked, for as long as this process lives.
            number, _ = tempfile.mkstemp(prefix=f"{plain[fewest]}.", dir=folder)
            own = os.fdopen(number, "wb", buffering=0)
            fcntl.flock(own, fcntl.LOCK_EX)
            # Processes of the user's code may outlive it, and have inherited the file. Theirs
            # inherit this as well: a file, unlike its number, is closed only once.
            os.register_at_fork(after_in_child=own.close)
    return fewest


def _is_used(file: Path) -> bool:
    """Whether the process that has made it lives; otherwise it is removed."""
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    file.unlink()
    return False
