"""Random numbers of a process that trains in itself: they go on as if it had not."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


@contextmanager
def kept_random_numbers() -> Iterator[None]:
    """Sets the global generators back at the end: each trial in this process seeds them anew.

    Keras's own needs no care: each thread has another one.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's
    running = _tensorflow()
    seed, draws = getattr(running, "_seed", None), getattr(running, "_rng", None)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if running is not None:
            running._seed, running._rng = seed, draws


def _tensorflow() -> Any:
    # One that is not imported yet has no numbers of the user's.
    context = sys.modules.get("tensorflow.python.eager.context")
    return None if context is None else context.context()
