"""The section `data:` of a study file: where rows come from, which train, how they are prepared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hpo.spec.parameters import Arguments, Frozen

Task = Literal["auto", "binary", "multiclass", "multilabel", "regression"]
ColumnKind = Literal["numeric", "categorical", "boolean", "date", "text", "ignore"]
# YAML has lists; a frozen value holds tuples.
Names = Annotated[tuple[str, ...], Field(strict=False)]


def _all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"expected each name once, received {twice[0]!r} more than once")
    return names


# Each of which becomes an array, an input or an output.
_Each = Annotated[
    tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(_all_different)
]


def _of_two(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) != 2:
        raise ValueError(f"expected [height, width], received a list of {len(value)}")
    return value


_Pixels = Annotated[int, Field(ge=1)]
_Size = Annotated[tuple[_Pixels, _Pixels], Field(strict=False), BeforeValidator(_of_two)]


class SklearnSource(Frozen):
    """A data set that ships with scikit-learn."""

    type: Literal["sklearn"]
    name: Literal["breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine"] = Field(
        description="Which of scikit-learn's bundled sets to load."
    )


class NpzSource(Frozen):
    """Arrays in a NumPy .npz file."""

    type: Literal["npz"]
    path: str = Field(description="The file, relative to the project folder.")
    x: str | _Each = Field(
        "x",
        description="Name of the array of features, one row a sample; a list of names makes a "
        "model with several inputs.",
    )
    y: str = Field("y", description="Name of the array of targets, one row a sample.")


class NpySource(Frozen):
    """Arrays in NumPy .npy files."""

    type: Literal["npy"]
    x: str | Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="The file of the features, or a file for each input of the model by its name."
    )
    y: str = Field(description="The file of the targets.")


class Column(Frozen):
    """How one column of a table is used."""

    kind: ColumnKind = Field(description="What the column holds; `ignore` leaves it out.")
    encode: Literal["one_hot", "hash", "embed"] = Field(
        "one_hot",
        description="For categorical columns. hash: into `bins` without a vocabulary; embed: whole "
        "numbers for a builder that embeds them.",
    )
    bins: int = Field(64, ge=2, description="Number of values of a hashed column.")
    most: int | None = Field(
        None, ge=2, description="Keep so many of the most frequent values or words."
    )

    @model_validator(mode="after")
    def _is_encoded_by_kind(self) -> Column:
        if self.encode != "one_hot" and self.kind != "categorical":
            raise ValueError(f"encode is for categorical columns, received kind {self.kind}")
        return self


class TableSource(Frozen):
    """A table in a CSV or Parquet file, a row a sample."""

    type: Literal["table"]
    path: str = Field(
        description="The file (.csv, .tsv, .parquet), relative to the project folder."
    )
    target: str | _Each = Field(description="The column to learn, or a list of columns.")
    features: _Each | None = Field(
        None, description="The columns to learn from; all others when left out."
    )
    exclude: Names = Field((), description="Columns to leave out.")
    columns: dict[str, ColumnKind | Column] = Field(
        default_factory=dict,
        description="What a column holds, where it should not be read off its values.",
    )


class ImageLabels(Frozen):
    """A table that says which pictures there are and what to learn of them."""

    path: str = Field(
        description="The file (.csv, .tsv, .parquet), relative to the project folder."
    )
    image: str = Field(description="The column with files, relative to the folder of pictures.")
    label: str | _Each = Field(description="The column to learn, or a list of columns.")


class ImagesSource(Frozen):
    """A folder of pictures: in a folder for each class, or with a table of labels."""

    type: Literal["images"]
    path: str = Field(description="The folder, relative to the project folder.")
    size: _Size | None = Field(
        None,
        description="[height, width] that each picture is resized to (bilinear); may be left out "
        "when all of them have the same.",
    )
    color: Literal["rgb", "grayscale"] = Field("rgb", description="Three channels, or one.")
    corrupt: Literal["refuse", "skip"] = Field(
        "refuse", description="What to do about files that can't be read; skip: with a warning."
    )
    labels: ImageLabels | None = Field(
        None, description="A table of files and labels, where there are no class folders."
    )


class SequencesSource(Frozen):
    """Series in long form, a row a time step: to classify, to rate, or to forecast by windows."""

    type: Literal["sequences"]
    path: str = Field(
        description="The table (.csv, .tsv, .parquet), relative to the project folder."
    )
    id: str = Field(description="The column that names the series of a row.")
    time: str = Field(description="The column that orders the steps of a series.")
    values: _Each = Field(description="The columns to learn from.")
    target: str | _Each = Field(
        description="The column to learn, or a list: one value a series, or with `window` the "
        "columns to forecast."
    )
    targets: str | None = Field(
        None, description="A second table with `id` and `target`, a row a series."
    )
    length: int | None = Field(
        None, ge=1, description="Keep so many of the last steps of a series; all when left out."
    )
    window: int | None = Field(
        None, ge=1, description="Forecast: learn from so many steps in a row."
    )
    horizon: int | None = Field(None, ge=1, description="Forecast so many steps after a window.")
    stride: int = Field(1, ge=1, description="Steps from one window to the next.")

    @model_validator(mode="after")
    def _is_labelled_or_windowed(self) -> SequencesSource:
        if (self.window is None) != (self.horizon is None):
            lacks = "horizon" if self.horizon is None else "window"
            raise ValueError(f"window and horizon belong together, {lacks} is missing")
        if self.window is None and self.stride != 1:
            raise ValueError("stride belongs to window and horizon")
        others = [key for key in ("targets", "length") if getattr(self, key) is not None]
        if self.window is not None and others:
            raise ValueError(f"with window and horizon there is no {others[0]}")
        return self


class KerasSource(Frozen):
    """A data set of `keras.datasets`, from Keras's cache; its own test part is the test part."""

    type: Literal["keras"]
    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100", "california_housing"] = Field(
        description="Which of the sets to load."
    )


class TfRecordFeature(Frozen):
    """What a feature of a TFRecord file holds."""

    dtype: Literal["float32", "int64", "string"] = Field(description="Type of its values.")
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), strict=False, description="Shape of one sample; a single value when left out."
    )


class TfRecordSource(Frozen):
    """`tf.train.Example` records in TFRecord files."""

    type: Literal["tfrecord"]
    path: str = Field(
        description="The file, relative to the project folder; `*` and `?` match several."
    )
    features: dict[str, TfRecordFeature] = Field(
        min_length=1, description="What the records hold, by name."
    )
    x: str | _Each = Field(
        "x",
        description="Name of the feature to learn from; a list makes a model with several inputs.",
    )
    y: str = Field("y", description="Name of the feature to learn.")
    compression: Literal["none", "gzip"] = Field("none", description="How the files are packed.")


class PythonSource(Frozen):
    """What a function of yours returns."""

    type: Literal["python"]
    load: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        json_schema_extra={"patternErrorMessage": "expected module:name such as my_data:load"},
        description="module:name of a function, resolved from the project folder.",
    )
    args: Arguments = Field(default_factory=dict, description="Passed to the function by name.")
    target: str | _Each | None = Field(
        None,
        description="The column to learn, where the function returns a DataFrame.",
    )
    columns: dict[str, ColumnKind | Column] = Field(
        default_factory=dict, description="As for a table, where it returns a DataFrame."
    )


Source = Annotated[
    SklearnSource
    | KerasSource
    | NpzSource
    | NpySource
    | TableSource
    | ImagesSource
    | SequencesSource
    | TfRecordSource
    | PythonSource,
    Field(discriminator="type"),
]

_Fraction = Annotated[float, Field(gt=0, lt=1)]


class Split(Frozen):
    """One seeded split into train, validation and test."""

    validation: _Fraction | str = Field(
        0.2, description="Fraction of all rows, or the path of a source of its own."
    )
    test: _Fraction | str = Field(
        0.2,
        description="Fraction of all rows, or the path of a source of its own; the search "
        "never sees it.",
    )
    stratify: bool = Field(True, description="Keep the class shares in every part.")
    column: str | None = Field(
        None, description="Column that says train, validation or test for each row."
    )
    group: str | None = Field(
        None, description="Column whose equal values stay together in one part."
    )
    time: str | None = Field(
        None, description="Column to order by: validation comes after train, test comes last."
    )
    seed: int = Field(0, ge=0, description="The same seed gives the same parts.")

    @model_validator(mode="after")
    def _is_one_way_to_split(self) -> Split:
        taken = [self.validation, self.test]
        total = sum(part for part in taken if not isinstance(part, str))
        if total >= 1:
            raise ValueError(
                "validation and test must leave rows to train on: their sum must be below 1, "
                f"received {total:g}"
            )
        named = [key for key in ("column", "group", "time") if getattr(self, key) is not None]
        if len(named) > 1:
            raise ValueError(f"only one of column, group and time, received {' and '.join(named)}")
        if self.column is not None and any(isinstance(part, str) for part in taken):
            raise ValueError(
                f"the column {self.column!r} says the part of each row, so validation and test "
                "can't be sources of their own; leave one or the other out"
            )
        return self


class Cross(Frozen):
    """Two or more categorical columns taken together, hashed into `bins` values."""

    columns: Names = Field(min_length=2, description="Names of the columns.")
    bins: int = Field(64, ge=2, description="Number of values that the combinations are hashed to.")


class Preprocess(Frozen):
    """What is done to the features before the model sees them; fitted on train only."""

    normalize: Literal["none", "standard", "minmax", "robust"] = Field(
        "none",
        description="standard: zero mean, unit variance; minmax: 0 to 1; robust: median and "
        "quartiles; per feature or channel.",
    )
    reshape: tuple[int, ...] | None = Field(
        None,
        strict=False,
        min_length=1,
        description="Shape of one sample, such as [8, 8, 1]; it is applied before normalizing.",
    )
    missing: Literal["auto", "mean", "median", "zero", "refuse", "drop"] = Field(
        "auto",
        description="Numbers that are missing: filled in, refused, or their rows dropped. auto: "
        "the median in a table, refused elsewhere.",
    )
    mask: bool = Field(
        False,
        description="Samples are sequences (steps, features), padded with NaN after their last "
        "step; padding is hidden from the model.",
    )
    crosses: tuple[Cross, ...] = Field(
        (), strict=False, description="Combinations of categorical columns of a table."
    )


class DataSpec(Frozen):
    """Where the data comes from and how it is prepared."""

    source: Source = Field(description="Where the rows come from.")
    task: Task = Field("auto", description="auto: read off the targets.")
    split: Split = Field(Split(), description="Which rows train, validate and test.")
    preprocess: Preprocess = Field(Preprocess(), description="What is done to the features.")
