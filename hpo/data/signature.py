"""What the data is, without the data: shapes, classes, counts and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ResolvedTask = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True)
class DataSignature:
    """What a builder and a worker need to know of the data.

    `input_shape` is the shape of one sample as the model sees it. `num_outputs` is the number of
    units of the head: 1 for binary, the number of classes for multiclass, the number of targets for
    regression. `rows` counts train, validation and test; `class_counts` counts the rows of each
    class in train, in the order of `class_names`, and may hold a 0 when the split is not
    stratified. The three class fields are None for regression. Two workers whose `fingerprint` is
    equal train on the same numbers.
    """

    task: ResolvedTask
    input_shape: tuple[int, ...]
    num_classes: int | None
    num_outputs: int
    class_names: tuple[str, ...] | None
    rows: tuple[int, int, int]
    class_counts: tuple[int, ...] | None
    fingerprint: str

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal value."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DataSignature:
        content = json.loads(text)
        return cls(**{field.name: _as_tuple(content[field.name]) for field in fields(cls)})


def fingerprint_of(arrays: Iterable[NDArray[Any]], settings: object) -> str:
    """16 hexadecimal digits over the arrays (type, shape, values) and settings of JSON types.

    Equal on every machine: the byte order and the memory layout of the arrays don't count.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        little_endian = array.dtype.newbyteorder("<")
        plain = np.ascontiguousarray(array, dtype=little_endian)
        digest.update(f"{plain.dtype.str}{plain.shape}".encode())
        digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
