"""Arrays as tensors. Needs TensorFlow."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpo.data.features import Array


def as_tensor(array: Array) -> Any:
    """A tensor of the same numbers; where the CPU computes, a mapped array is not copied for it.

    Then the tensor's memory is the file's, which all processes share, and it keeps the file mapped.
    """
    if tf.is_tensor(array):
        return array
    if not (_is_mapped(array) and array.flags.c_contiguous) or _has_accelerator():
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(np.asarray(_Lent(array)).__dlpack__())


class Tensors:
    """Arrays as tensors by name: one each, however many graphs read it."""

    def __init__(self) -> None:
        self._tensors: dict[str, Any] = {}

    def of(self, name: str, make: Callable[[], Any]) -> Any:
        """The tensor of this name, or tensors by name; `make` is asked for its array once."""
        if name not in self._tensors:
            self._tensors[name] = keras.tree.map_structure(as_tensor, make())
        return self._tensors[name]


class _Lent:
    """A read-only array that may be handed over by DLPack, which knows no read-only memory.

    A private mapping could be written to, but it counts as memory that the process may claim, and
    the kernel refuses one that is larger than the machine's.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.ctypes.data, False),
        }


def _is_mapped(array: object) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def _has_accelerator() -> bool:
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
