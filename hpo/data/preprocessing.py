"""What is done to the features before the model sees them, fitted on the train rows only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.checks import check_reshape
from hpo.errors import DataError
from hpo.spec.models import Preprocess

Floats = NDArray[np.float32]

_RESOLUTION = np.finfo(np.float32)


@dataclass(frozen=True)
class FittedPreprocessing:
    """Reshape, then `(x - offset) * scale` along the last axis: per feature, or per channel.

    `raw_shape` is the shape of one sample as it comes, `reshape` the one that it is given (None
    leaves it). `offset` and `scale` have one number for each index of the last axis, or are empty
    when nothing is normalized. They are exact in float32, so that every machine, and the layers of
    an exported model, compute the same.
    """

    raw_shape: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample as the model sees it."""
        return self.reshape or self.raw_shape

    def apply(self, x: NDArray[Any]) -> Floats:
        """Turns raw features (rows, *raw_shape) into float32 (rows, *input_shape).

        The arithmetic is float32 throughout, as it is inside an exported model.
        Raises DataError when the samples have another shape.
        """
        if x.shape[1:] != self.raw_shape:
            raise DataError(
                f"the features have shape {x.shape[1:]} a sample; "
                f"expected {self.raw_shape}, as in the data that was searched on."
            )
        shaped = x.astype(np.float32).reshape(len(x), *self.input_shape)
        if self.scale:
            shaped -= np.asarray(self.offset, dtype=np.float32)
            shaped *= np.asarray(self.scale, dtype=np.float32)
        return shaped

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types that `from_dict` reads back to an equal value."""
        content = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FittedPreprocessing:
        reshape = content["reshape"]
        return cls(
            raw_shape=tuple(content["raw_shape"]),
            reshape=None if reshape is None else tuple(reshape),
            offset=tuple(content["offset"]),
            scale=tuple(content["scale"]),
        )


def fit_preprocessing(x: NDArray[Any], preprocess: Preprocess) -> FittedPreprocessing:
    """Fits on raw train features (rows, *shape).

    standard: zero mean, unit variance; minmax: 0 to 1. A feature that is constant in train is only
    shifted, because it may vary elsewhere and must not be blown up there.

    Raises DataError when the reshape does not fit the samples.
    """
    check_reshape(x.shape[1:], preprocess.reshape)
    shape_only = FittedPreprocessing(x.shape[1:], preprocess.reshape)
    if preprocess.normalize == "none":
        return shape_only
    columns = x.astype(np.float32).reshape(-1, shape_only.input_shape[-1])
    offset, spread = _standard(columns) if preprocess.normalize == "standard" else _minmax(columns)
    spread[_is_constant(spread, columns)] = 1.0
    return FittedPreprocessing(
        shape_only.raw_shape, shape_only.reshape, _float32_safe(offset), _float32_safe(1 / spread)
    )


def _standard(columns: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return columns.mean(axis=0, dtype=np.float64), columns.std(axis=0, dtype=np.float64)


def _minmax(columns: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = (edge(axis=0).astype(np.float64) for edge in (columns.min, columns.max))
    return low, high - low


def _is_constant(spread: NDArray[np.float64], columns: Floats) -> NDArray[np.bool_]:
    # A spread of a few rounding steps is noise of float32, not information.
    noise = 8 * float(_RESOLUTION.eps) * np.abs(columns).max(axis=0).astype(np.float64)
    constant: NDArray[np.bool_] = spread <= np.maximum(noise, float(_RESOLUTION.tiny))
    return constant


def _float32_safe(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.astype(np.float32).tolist())
