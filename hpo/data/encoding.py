"""A table's columns as numbers: filled in, normalized, looked up, hashed, crossed. Needs Keras.

One Keras graph does it, for training and inside an exported model, so that both see the same
numbers. Text columns go through `keras.utils.FeatureSpace`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.utils import FeatureSpace

from hpo.data.features import Array, Features, Shape
from hpo.data.layers import plain_name, prepared, raw_batches
from hpo.data.preprocessing import FittedPreprocessing, fit_preprocessing
from hpo.errors import DataError
from hpo.spec.models import Column, Preprocess

# The input of all columns that are no whole numbers to be embedded.
NUMERIC = "numeric"
_BATCH = 4096
_WORDS = 1000
_WEEK, _YEAR = 7.0, 365.2425


class TableEncoding:
    """Raw columns by name to one float32 vector, or to a vector and codes to be embedded.

    Attributes:
        model: Takes columns by name, (rows, 1) of float32 or strings. Puts out (rows, features), or
            arrays by name where columns are embedded: `numeric` as before, and whole numbers
            (rows,) for each embedded column.
        vocabulary_sizes: The number of codes of each embedded column.
    """

    def __init__(self, model: keras.Model, vocabulary_sizes: dict[str, int]) -> None:
        self.model = model
        self.vocabulary_sizes = vocabulary_sizes

    @property
    def input_shape(self) -> Shape | dict[str, Shape]:
        shape: Shape | dict[str, Shape] = keras.tree.map_structure(
            lambda output: tuple(output.shape[1:]), self.model.output
        )
        return shape

    @property
    def mask_value(self) -> None:
        return None

    def apply(self, x: Features) -> Features:
        """Encodes raw columns: float32 and strings, each (rows,)."""
        assert isinstance(x, dict)
        known = {name: x[name] for name in x if plain_name(name) in self.model.input}
        batches = raw_batches(known, _BATCH)
        encoded: Features = self.model.predict(batches, verbose=0)
        return encoded


def fit_table(
    x: Mapping[str, Array], columns: Mapping[str, Column], preprocess: Preprocess
) -> TableEncoding:
    """Fits on raw train columns.

    Raises DataError when a combination of columns asks for what is not there.
    """
    names = sorted(columns)
    _check_names(names)
    inputs = {name: _input(name, columns[name]) for name in names}
    vectors = _numbers(x, columns, inputs, preprocess)
    coded: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    looked_up = [name for name in names if columns[name].kind in ("categorical", "text")]
    if looked_up or preprocess.crosses:
        space, keys = _feature_space(x, columns, looked_up, preprocess)
        lookups = keras.Model(dict(space.get_inputs()), dict(space.get_encoded_features()))
        encoded = lookups({key: inputs[name] for name, key in keys.items()})
        for key, output in encoded.items():
            name = next((name for name, each in keys.items() if each == key), None)
            if name is not None and columns[name].encode == "embed":
                coded[plain_name(name)] = keras.layers.Reshape(())(output)
                sizes[plain_name(name)] = int(space.preprocessors[key].vocabulary_size())
            else:
                vectors.append(keras.layers.Flatten()(keras.ops.cast(output, "float32")))
    # Named, because a user's model inside an exported one has the name that Keras makes up.
    by_name = {plain_name(name): each for name, each in inputs.items()}
    model = keras.Model(by_name, _outputs(vectors, coded), name="preprocessing")
    return TableEncoding(model, sizes)


def _input(name: str, column: Column) -> Any:
    dtype = "string" if column.kind in ("categorical", "text") else "float32"
    return keras.Input((1,), name=plain_name(name), dtype=dtype)


def _check_names(names: list[str]) -> None:
    twice = [name for name, count in Counter(map(plain_name, names)).items() if count > 1]
    if twice:
        raise DataError(f"two columns would be the input {twice[0]!r} of a model; rename one")


def _numbers(
    x: Mapping[str, Array],
    columns: Mapping[str, Column],
    inputs: Mapping[str, Any],
    preprocess: Preprocess,
) -> list[Any]:
    """Numbers, truth values and dates, filled in and normalized; and where in week and year."""
    names = [name for name in inputs if columns[name].kind in ("numeric", "boolean", "date")]
    if not names:
        return []
    joined = _joined([inputs[name] for name in names])
    matrix = np.stack([x[name] for name in names], axis=1)
    fitted = _fit_numbers(matrix, preprocess)
    vectors = [prepared(fitted, joined)]
    dates = [inputs[name] for name in names if columns[name].kind == "date"]
    if dates:
        vectors.append(_cycles(_joined(dates)))
    return vectors


def _fit_numbers(matrix: Array, preprocess: Preprocess) -> FittedPreprocessing:
    if preprocess.missing == "auto":
        preprocess = preprocess.model_copy(update={"missing": "median"})
    return fit_preprocessing(matrix, preprocess.model_copy(update={"reshape": None}))


def _cycles(days: Any) -> Any:
    """Sine and cosine of the place in the week and in the year; 0 where the date is missing."""
    turns = [days * (2 * math.pi / period) for period in (_WEEK, _YEAR)]
    waves = [wave(turn) for turn in turns for wave in (keras.ops.sin, keras.ops.cos)]
    return keras.ops.nan_to_num(keras.layers.Concatenate()(waves))


def _feature_space(
    x: Mapping[str, Array], columns: Mapping[str, Column], names: list[str], preprocess: Preprocess
) -> tuple[FeatureSpace, dict[str, str]]:
    """Adapted to the train rows; and its key of each column."""
    keys = {name: f"c{index}" for index, name in enumerate(names)}
    space = FeatureSpace(
        features={key: _feature(columns[name]) for name, key in keys.items()},
        crosses=[_cross(cross.columns, cross.bins, keys, columns) for cross in preprocess.crosses],
        output_mode="dict",
    )
    space.adapt(raw_batches({key: x[name] for name, key in keys.items()}, _BATCH))
    return space, keys


def _feature(column: Column) -> Any:
    if column.kind == "text":
        words = keras.layers.TextVectorization(
            max_tokens=column.most or _WORDS, output_mode="tf_idf"
        )
        return FeatureSpace.feature(dtype="string", preprocessor=words, output_mode="float")
    if column.encode == "hash":
        return FeatureSpace.string_hashed(num_bins=column.bins, output_mode="one_hot")
    # One more for what is not in the vocabulary.
    most = None if column.most is None else column.most + 1
    mode = "int" if column.encode == "embed" else "one_hot"
    return FeatureSpace.string_categorical(max_tokens=most, num_oov_indices=1, output_mode=mode)


def _cross(
    names: tuple[str, ...], bins: int, keys: Mapping[str, str], columns: Mapping[str, Column]
) -> Any:
    for name in names:
        if name not in keys or columns[name].kind != "categorical":
            categorical = [each for each in keys if columns[each].kind == "categorical"]
            known = ", ".join(sorted(categorical)) or "none"
            raise DataError(
                f"`preprocess.crosses` names {name!r}, which is no categorical column; those are: "
                f"{known}"
            )
    return FeatureSpace.cross([keys[name] for name in names], bins, output_mode="one_hot")


def _joined(vectors: list[Any]) -> Any:
    return keras.layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]


def _outputs(vectors: list[Any], coded: dict[str, Any]) -> Any:
    if not coded:
        return _joined(vectors)
    if NUMERIC in coded:
        raise DataError(f"a column that is embedded can't be called {NUMERIC!r}; rename it")
    return {NUMERIC: _joined(vectors), **coded} if vectors else coded
