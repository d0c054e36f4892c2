"""What the data is, without the data: shapes, classes, counts and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from numpy.typing import NDArray

from hpo.data.chunks import bytes_of, chunks
from hpo.data.features import Shape
from hpo.data.raw import ARRAYS

ResolvedTask = Literal["binary", "multiclass", "multilabel", "regression"]


@dataclass(frozen=True)
class DataSignature:
    """What a builder and a worker need to know of the data.

    `input_shape` is the shape of one sample as the model sees it, by name where it has several
    inputs; its first axis is None for sequences of different length. `num_outputs` is the number of
    units of the head: 1 for binary, the number of classes for multiclass and of labels for
    multilabel, the number of targets for regression. `rows` counts train, validation and test;
    `class_counts` counts the rows of each class in train, in the order of `class_names`, and may
    hold a 0 when the split is not stratified. The three class fields are None for regression.
    `vocabulary_sizes` has the number of codes of each input that holds whole numbers to be
    embedded. `target_mean` and `target_std` are those of each target in train, for regression; None
    otherwise. `mask_value` is what all features of a step hold that only pads a sequence; None when
    all sequences have one length. `target_shape` is the shape of a row's targets as the data has
    them: of classes () for their numbers, (1,) for a column of these, (classes,) for one-hot rows;
    `own_targets` says that it is the user who has made this array, and not a source.
    `form` says what raw rows look like, `warnings` what a person should look at. Two workers whose
    `fingerprint` is equal train on the same numbers.
    """

    task: ResolvedTask
    input_shape: Shape | dict[str, Shape]
    num_classes: int | None
    num_outputs: int
    class_names: tuple[str, ...] | None
    rows: tuple[int, int, int]
    class_counts: tuple[int, ...] | None
    fingerprint: str
    vocabulary_sizes: dict[str, int] = field(default_factory=dict)
    target_mean: tuple[float, ...] | None = None
    target_std: tuple[float, ...] | None = None
    mask_value: float | None = None
    target_shape: Shape = ()
    own_targets: bool = True
    form: dict[str, Any] = field(default_factory=lambda: dict(ARRAYS))
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal value."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DataSignature:
        content = json.loads(text)
        # A study of before knows nothing of what was added since.
        known = {k.name: _as_tuple(content[k.name]) for k in fields(cls) if k.name in content}
        if isinstance(known["input_shape"], dict):
            known["input_shape"] = {k: tuple(v) for k, v in known["input_shape"].items()}
        return cls(**known)


def fingerprint_of(arrays: Iterable[NDArray[Any]], settings: object) -> str:
    """16 hexadecimal digits over the arrays (type, shape, values) and settings of JSON types.

    Equal on every machine: the byte order and the memory layout of the arrays don't count.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        little_endian = array.dtype.newbyteorder("<")
        digest.update(f"{little_endian.str}{array.shape}".encode())
        for _, chunk in chunks(array):
            digest.update(bytes_of(chunk.astype(little_endian, copy=False)))
    return digest.hexdigest()[:16]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
