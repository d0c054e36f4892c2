"""What is done to the features before the model sees them, fitted on the train rows only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.data.checks import check_reshape
from hpo.data.chunks import chunks
from hpo.data.columnwise import Columns, Doubles, Floats, mean_of, std_of
from hpo.data.features import Array, Features, Shape
from hpo.data.padding import is_padding
from hpo.errors import DataError
from hpo.spec.models import Preprocess

Numbers = tuple[float, ...]

# Rules that put a number where one is missing.
FILLING = ("mean", "median", "zero")

# Farther from 0 than normalized data comes.
_MASK_VALUE = -1000.0

_RESOLUTION = np.finfo(np.float32)


class Preparation(Protocol):
    """What turns raw features into what the model sees, on every machine alike.

    `hpo.data.layers.raw_inputs` has the same as Keras layers, for an exported model.
    """

    @property
    def input_shape(self) -> Shape | dict[str, Shape]:
        """The shape of one sample as the model sees it, by name for several inputs."""

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """The number of codes of each input that is to be embedded."""

    @property
    def mask_value(self) -> float | None:
        """What the model sees in the steps that only pad a sequence; None where nothing pads."""

    def apply(self, x: Features) -> Features:
        """Prepares raw features. Raises DataError when they have another shape."""


@dataclass(frozen=True)
class FittedPreprocessing:
    """Reshape, fill in, then `(x - offset) * scale` along the last axis: per feature or channel.

    `raw_shape` is the shape of one sample as it comes, `reshape` the one that it is given (None
    leaves it). `fill`, `offset` and `scale` have one number for each index of the last axis, or are
    empty when nothing is filled in or normalized. They are exact in float32, so that every machine,
    and the layers of an exported model, compute the same. With `mask_value` samples are sequences
    of any length: `raw_shape` is (None, features), and steps that are padding become `mask_value`.
    """

    raw_shape: Shape
    reshape: Shape | None = None
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    fill: tuple[float, ...] = ()
    mask_value: float | None = None

    @property
    def input_shape(self) -> Shape:
        return self.reshape or self.raw_shape

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        return {}

    def apply(self, x: Features) -> Floats:
        """Turns raw features (rows, *raw_shape) into float32 (rows, *input_shape).

        The arithmetic is float32 throughout, as it is inside an exported model.
        Raises DataError when the samples have another shape.
        """
        assert not isinstance(x, dict)
        if not fits(x.shape[1:], self.raw_shape):
            raise DataError(
                f"the features have shape {x.shape[1:]} a sample; "
                f"expected {self.raw_shape}, as in the data that was searched on."
            )
        shaped = x.astype(np.float32)
        if self.reshape is not None:
            shaped = shaped.reshape(len(x), *self.reshape)
        if self.fill:
            shaped = np.where(np.isnan(shaped), np.asarray(self.fill, np.float32), shaped)
        if self.scale:
            shaped -= np.asarray(self.offset, dtype=np.float32)
            shaped *= np.asarray(self.scale, dtype=np.float32)
        if self.mask_value is not None:
            shaped[is_padding(x)] = self.mask_value
        return shaped


@dataclass(frozen=True)
class FittedInputs:
    """The same for each of several inputs."""

    inputs: Mapping[str, FittedPreprocessing]

    @property
    def input_shape(self) -> dict[str, Shape]:
        return {name: fitted.input_shape for name, fitted in self.inputs.items()}

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        return {}

    @property
    def mask_value(self) -> None:
        return None

    def apply(self, x: Features) -> dict[str, Floats]:
        assert isinstance(x, dict)
        return {name: fitted.apply(x[name]) for name, fitted in self.inputs.items()}


def fit_arrays(
    x: Features, preprocess: Preprocess, rows: Array | None = None
) -> FittedPreprocessing | FittedInputs:
    """Fits on raw train features, one array or several; on the rows of these numbers, or all.

    Raises DataError when the reshape does not fit the samples.
    """
    if not isinstance(x, dict):
        return fit_preprocessing(x, preprocess, rows)
    return FittedInputs(
        {name: fit_preprocessing(array, preprocess, rows) for name, array in x.items()}
    )


def fit_sequences(
    x: Features, preprocess: Preprocess, rows: Array | None = None
) -> FittedPreprocessing:
    """Fits on raw train sequences (rows, steps, features), padded with NaN after their last step.

    Padding counts for nothing. Raises DataError when a reshape is asked for.
    """
    assert not isinstance(x, dict)
    if preprocess.reshape is not None:
        raise DataError("`preprocess.reshape` is for samples of one shape; sequences have lengths")
    columns = Columns(x, rows, x.shape[-1], steps_only=True)
    offset, scale, fill = _fit(columns, preprocess)
    raw_shape = (None, x.shape[-1])
    fitted = FittedPreprocessing(raw_shape, None, offset, scale, fill, _MASK_VALUE)
    lowest = min(
        float(fitted.apply(chunk)[~is_padding(chunk)].min()) for _, chunk in chunks(x, rows)
    )
    return fitted if lowest > _MASK_VALUE else replace(fitted, mask_value=_below(lowest))


def _below(lowest: float) -> float:
    """A power of ten at least ten times as far from 0."""
    return -(10.0 ** (math.ceil(math.log10(-lowest)) + 1))


def fits(shape: tuple[int, ...], expected: Shape) -> bool:
    """Whether a sample's shape is the expected one, where None stands for any length."""
    return len(shape) == len(expected) and all(
        wanted in (None, size) for size, wanted in zip(shape, expected, strict=True)
    )


def fit_preprocessing(
    x: Array, preprocess: Preprocess, rows: Array | None = None
) -> FittedPreprocessing:
    """Fits on raw train features (rows, *shape); on the rows of these numbers, or all.

    standard: zero mean, unit variance; minmax: 0 to 1; robust: the median at 0 and the quartiles
    1 apart. A feature that is constant in train is only shifted, because it may vary elsewhere and
    must not be blown up there. What is missing is passed over, then filled in. Median and quartiles
    of data that is large are those of as many rows as are not, evenly spaced.

    Raises DataError when the reshape does not fit the samples.
    """
    check_reshape(x.shape[1:], preprocess.reshape)
    width = (preprocess.reshape or x.shape[1:])[-1]
    offset, scale, fill = _fit(Columns(x, rows, width), preprocess)
    return FittedPreprocessing(x.shape[1:], preprocess.reshape, offset, scale, fill)


def _fit(columns: Columns, preprocess: Preprocess) -> tuple[Numbers, Numbers, Numbers]:
    """Offset, scale and fill."""
    fill = _fill(columns, preprocess)
    if preprocess.normalize == "none":
        return (), (), fill
    columns = replace(columns, fill=fill)
    offset, spread = _SCALES[preprocess.normalize](columns)
    spread[_is_constant(spread, columns)] = 1.0
    return _float32_safe(offset), _float32_safe(1 / spread), fill


def _fill(columns: Columns, preprocess: Preprocess) -> tuple[float, ...]:
    """What gaps are filled with; nothing where none may be."""
    if preprocess.missing in ("refuse", "drop", "auto"):
        return ()
    values = np.zeros(columns.width)
    if preprocess.missing == "mean":
        values = mean_of(columns)
    elif preprocess.missing == "median":
        sample = columns.sample()
        some = ~np.isnan(sample).all(axis=0)
        values[some] = np.nanmedian(sample[:, some].astype(np.float64), axis=0)
    return _float32_safe(values)


def _standard(columns: Columns) -> tuple[Doubles, Doubles]:
    mean = mean_of(columns)
    return mean, std_of(columns, mean)


def _minmax(columns: Columns) -> tuple[Doubles, Doubles]:
    lows, highs = zip(*((each.min(axis=0), each.max(axis=0)) for each in columns), strict=True)
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    return low.astype(np.float64), high.astype(np.float64) - low.astype(np.float64)


def _robust(columns: Columns) -> tuple[Doubles, Doubles]:
    sample = columns.sample().astype(np.float64)
    low, middle, high = np.percentile(sample, (25, 50, 75), axis=0)
    spread = high - low
    # A feature that is mostly one value has no distance between its quartiles.
    flat = spread == 0
    if flat.any():
        spread[flat] = std_of(columns, mean_of(columns))[flat]
    return middle, spread


_SCALES = {"standard": _standard, "minmax": _minmax, "robust": _robust}


def _is_constant(spread: Doubles, columns: Columns) -> NDArray[np.bool_]:
    # A spread of a few rounding steps is noise of float32, not information.
    largest = np.max([np.abs(each).max(axis=0) for each in columns], axis=0)
    noise = 8 * float(_RESOLUTION.eps) * largest.astype(np.float64)
    constant: NDArray[np.bool_] = spread <= np.maximum(noise, float(_RESOLUTION.tiny))
    return constant


def _float32_safe(values: Doubles) -> tuple[float, ...]:
    return tuple(values.astype(np.float32).tolist())
