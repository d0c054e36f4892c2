"""What a source hands over: rows as they are, before anything is checked or split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpo.data.features import Array, Features

ARRAYS: Mapping[str, Any] = {"type": "arrays"}


@dataclass(frozen=True, eq=False)
class RawData:
    """Features and targets, one row a sample.

    Attributes:
        class_names: In the sorted order of the labels, or of the columns of a target with several;
            None when the source has no names.
        form: What raw rows look like, in JSON types: what a prediction needs to read a file.
        columns: The ones that the split asks for, by name.
        parts: For rows that a source of their own provides: train, validation or test; "" where
            the split decides. None where it decides for all.
        warnings: What a person should look at.
    """

    x: Features
    y: Array
    class_names: tuple[str, ...] | None = None
    form: Mapping[str, Any] = field(default_factory=lambda: ARRAYS)
    columns: Mapping[str, Array] = field(default_factory=dict)
    parts: Array | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source: its own, and those that the split names for single parts.

    Attributes:
        files: (part, path), where part is "" for rows that the split divides.
        columns: Names of columns that the split asks for.
    """

    files: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]

    def parts(self, counts: list[int]) -> Array | None:
        """The part of each row, for files of so many rows; None when there is one file."""
        if len(self.files) == 1:
            return None
        return np.repeat([part for part, _ in self.files], counts)
