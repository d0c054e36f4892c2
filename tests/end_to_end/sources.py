"""Data of every source and task, as a user has it: what the study file says of it, and raw rows.

All of it is real and comes with scikit-learn or with this project: wines, biopsies, patients,
handwritten digits and spoken vowels. What is made up is made of it: gaps and texts in tables,
labels that follow from a digit, and the digits that stand in Keras's cache as Fashion-MNIST.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets

from hpo.data.opening import RawPart
from tests.conftest import ROOT
from tests.pictures import write_digits

Section = dict[str, Any]
# True targets, in the order of the rows or by the name that a prediction comes with.
Truth = Any
Ask = Callable[[RawPart], tuple[Path, Truth]]


@dataclass(frozen=True)
class Written:
    """Data in a project's folder.

    Attributes:
        data: The section of the study file.
        ask: Writes the raw features of a part to a file that `hpo predict` takes, and says what
            is true of them.
    """

    data: Section
    ask: Ask


def section(source: Section, seed: int = 3, **more: Any) -> Section:
    """A data section with a seeded split and normalized features."""
    preprocess = {"normalize": "standard", **more.pop("preprocess", {})}
    return {
        "source": source,
        "split": {"seed": seed, **more.pop("split", {})},
        "preprocess": preprocess,
        **more,
    }


def arrays(folder: Path, y: Any, **x: Any) -> Ask:
    """Raw rows as a .npz file."""

    def ask(part: RawPart) -> tuple[Path, Truth]:
        np.savez(folder / "rows.npz", **{name: array[part.rows] for name, array in x.items()})
        return folder / "rows.npz", np.asarray(y)[part.rows]

    return ask


def table(folder: Path, frame: pd.DataFrame, target: str | list[str], kind: str = "csv") -> Ask:
    """Raw rows as a table without its targets, its columns in another order."""

    def ask(part: RawPart) -> tuple[Path, Truth]:
        fresh = frame.drop(columns=target).iloc[part.rows, ::-1]
        write_table(fresh, folder / f"rows.{kind}")
        return folder / f"rows.{kind}", frame[target].to_numpy()[part.rows]

    return ask


def write_table(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def classes(bunch: Any) -> np.ndarray:
    """The names of the classes, a row each."""
    return np.asarray(bunch.target_names)[bunch.target].astype(str)


def labels_of(digits: np.ndarray) -> pd.DataFrame:
    """What may be true of a digit, all at once."""
    truths = {"even": digits % 2 == 0, "round": np.isin(digits, [0, 6, 8, 9]), "large": digits > 4}
    return pd.DataFrame(truths).astype(int)


def sklearn_binary(folder: Path) -> Written:
    bunch = datasets.load_breast_cancer()
    source = {"type": "sklearn", "name": "breast_cancer"}
    return Written(section(source), arrays(folder, classes(bunch), x=bunch.data))


def keras_fashion(folder: Path) -> Written:
    pictures, digits = digits_of_28()
    names = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
    data = section(
        {"type": "keras", "name": "fashion_mnist"},
        preprocess={"reshape": [28, 28, 1], "normalize": "minmax"},
    )
    return Written(data, arrays(folder, np.array(names.split(","))[digits], x=pictures))


def write_fashion_mnist(home: Path) -> None:
    """Digits as 28 by 28 pixels in the four files of Fashion-MNIST, in a cache of Keras."""
    pictures, digits = digits_of_28()
    folder = home / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for part, rows in (("train", slice(400)), ("t10k", slice(400, None))):
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(bytes(8) + digits[rows].astype(np.uint8).tobytes())
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(bytes(16) + pictures[rows].tobytes())


def digits_of_28() -> tuple[np.ndarray, np.ndarray]:
    bunch = datasets.load_digits()
    large = np.kron(bunch.images[:500] * 15, np.ones((1, 3, 3)))
    return np.pad(large, ((0, 0), (2, 2), (2, 2))).astype(np.uint8), bunch.target[:500]


def npz_multiclass(folder: Path) -> Written:
    bunch = datasets.load_wine()
    np.savez(folder / "wine.npz", features=bunch.data, kind=classes(bunch))
    source = {"type": "npz", "path": "wine.npz", "x": "features", "y": "kind"}
    return Written(section(source), arrays(folder, classes(bunch), x=bunch.data))


def npz_several_inputs(folder: Path) -> Written:
    """Means and worst values of a biopsy as two inputs; validation in a file of its own."""
    bunch = datasets.load_breast_cancer()
    x = {"mean": bunch.data[:, :10], "worst": bunch.data[:, 20:]}
    for name, rows in (("search", slice(450)), ("later", slice(450, None))):
        named = {key: array[rows] for key, array in x.items()}
        np.savez(folder / f"{name}.npz", y=bunch.target[rows], **named)
    source = {"type": "npz", "path": "search.npz", "x": ["mean", "worst"]}
    data = section(source, split={"validation": "later.npz"})
    return Written(data, arrays(folder, bunch.target.astype(str), **x))


def npz_padded(folder: Path) -> Written:
    """Utterances as arrays that are padded with NaN; they go in as they are."""
    frame = vowels()
    names = [f"lpc_{index}" for index in range(1, 13)]
    series = [each[names].to_numpy(np.float32) for _, each in frame.groupby("utterance")]
    x = np.full((len(series), max(map(len, series)), len(names)), np.nan, np.float32)
    for row, steps in enumerate(series):
        x[row, : len(steps)] = steps
    y = frame.groupby("utterance")["speaker"].first().to_numpy().astype(str)
    np.savez(folder / "vowels.npz", x=x, y=y)
    data = section({"type": "npz", "path": "vowels.npz"}, preprocess={"mask": True})
    return Written(data, arrays(folder, y, x=x))


def npy_regression(folder: Path) -> Written:
    """Raw rows go in as a CSV of numbers here."""
    bunch = datasets.load_diabetes(scaled=False)
    np.save(folder / "x.npy", bunch.data)
    np.save(folder / "y.npy", bunch.target)

    def ask(part: RawPart) -> tuple[Path, Truth]:
        np.savetxt(folder / "rows.csv", bunch.data[part.rows], delimiter=",")
        return folder / "rows.csv", bunch.target[part.rows]

    return Written(section({"type": "npy", "x": "x.npy", "y": "y.npy"}), ask)


def wine_with_gaps() -> pd.DataFrame:
    """Wines with an id, texts, dates, truths and missing values of every kind."""
    bunch = datasets.load_wine(as_frame=True)
    frame = bunch.data.assign(kind=bunch.target.map({0: "barolo", 1: "grignolino", 2: "barbera"}))
    frame = frame.sample(frac=1, random_state=0, ignore_index=True)
    number = pd.Series(np.arange(len(frame)))
    frame.insert(0, "bottle", number)
    frame["hue"] = np.where(frame["hue"] > 1, "light", "dark")
    frame["strong"] = np.where(frame["alcohol"] > 13, "true", "false")
    frame["picked"] = pd.Timestamp("1990-09-01") + pd.to_timedelta(number % 40, "D")
    frame["cellar"] = "c" + (number % 7).astype(str)
    frame["note"] = (
        "a " + frame["hue"] + " wine of cellar " + frame["cellar"] + " " + number.astype(str)
    )
    for every, column in ((9, "alcohol"), (11, "hue"), (13, "picked"), (17, "note")):
        frame.loc[::every, column] = None
    return frame


def csv_multiclass(folder: Path) -> Written:
    frame = wine_with_gaps()
    write_table(frame, folder / "wine.csv")
    source = {"type": "table", "path": "wine.csv", "target": "kind"}
    return Written(section(source), table(folder, frame, "kind"))


def parquet_binary(folder: Path) -> Written:
    """Hashed, embedded and crossed columns; the tables of the parts are files of their own."""
    frame = wine_with_gaps().drop(columns="note")
    frame["kind"] = np.where(frame["kind"] == "barolo", "barolo", "another")
    frame["cellar"] = frame["cellar"].astype("category")
    frame["strong"] = (frame["strong"] == "true").astype("boolean").mask(frame.index % 10 == 0)
    for name, rows in (
        ("search", slice(100)),
        ("later", slice(100, 140)),
        ("last", slice(140, 178)),
    ):
        write_table(frame[rows], folder / f"{name}.parquet")
    columns = {"cellar": {"kind": "categorical", "encode": "embed"}}
    columns["hue"] = {"kind": "categorical", "encode": "hash", "bins": 8}
    data = section(
        {"type": "table", "path": "search.parquet", "target": "kind", "columns": columns},
        split={"validation": "later.parquet", "test": "last.parquet"},
        preprocess={"crosses": [{"columns": ["hue", "cellar"], "bins": 16}], "missing": "mean"},
    )
    return Written(data, table(folder, frame, "kind", "parquet"))


def parquet_several_targets(folder: Path) -> Written:
    frame = datasets.load_diabetes(as_frame=True, scaled=False).frame
    frame["sex"] = frame["sex"].map({1: "a", 2: "b"})
    frame.loc[::8, "bmi"] = np.nan
    write_table(frame, folder / "patients.parquet")
    targets = ["target", "bp"]
    source = {"type": "table", "path": "patients.parquet", "target": targets}
    return Written(section(source), table(folder, frame, targets, "parquet"))


def tsv_multilabel(folder: Path) -> Written:
    bunch = datasets.load_digits(as_frame=True)
    labels = labels_of(bunch.target.to_numpy())
    frame = pd.concat([bunch.data.iloc[:, 8:56], labels], axis=1)[:600]
    write_table(frame, folder / "digits.tsv")
    source = {"type": "table", "path": "digits.tsv", "target": list(labels)}
    return Written(section(source), table(folder, frame, list(labels), "tsv"))


def class_folders(folder: Path) -> Written:
    write_digits(folder / "digits", 400)
    files = sorted(path.relative_to(folder / "digits") for path in folder.glob("digits/*/*.png"))
    source = {"type": "images", "path": "digits", "color": "grayscale"}

    def ask(part: RawPart) -> tuple[Path, Truth]:
        for row in part.rows:
            (folder / "fresh" / files[row]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "digits" / files[row], folder / "fresh" / files[row])
        return folder / "fresh", {str(files[row]): files[row].parent.name for row in part.rows}

    return Written(section(source), ask)


def table_of_labels(folder: Path) -> Written:
    """Pictures of another size in colours, named in a table; a table of names is predicted."""
    write_digits(folder / "digits", 400)
    files = [str(path.relative_to(folder / "digits")) for path in sorted(folder.glob("digits/*/*"))]
    frame = labels_of(np.array([int(name[0]) for name in files]))
    target = list(frame)
    frame.insert(0, "picture", files)
    frame = frame.sample(frac=1, random_state=1, ignore_index=True)
    write_table(frame, folder / "labels.csv")
    labels = {"path": "labels.csv", "image": "picture", "label": target}
    source = {"type": "images", "path": "digits", "size": [12, 10], "labels": labels}

    def ask(part: RawPart) -> tuple[Path, Truth]:
        chosen = frame.iloc[part.rows]
        # Names in a table to predict are relative to its folder.
        write_table(chosen[["picture"]], folder / "digits" / "fresh.csv")
        truth = dict(zip(chosen["picture"], chosen[target].to_numpy(), strict=True))
        return folder / "digits" / "fresh.csv", truth

    return Written(section(source), ask)


def vowels() -> pd.DataFrame:
    """The utterances of studies/japanese-vowels, 7 to 26 frames long."""
    return pd.read_parquet(ROOT / "studies" / "japanese-vowels" / "train.parquet")


LONG = {"type": "sequences", "path": "vowels.csv", "id": "utterance", "time": "frame"}


def series(folder: Path, frame: pd.DataFrame, truth: Mapping[Any, Any]) -> Ask:
    """Raw series in long form, shuffled."""
    names = sorted(truth)

    def ask(part: RawPart) -> tuple[Path, Truth]:
        chosen = [names[row] for row in part.rows]
        fresh = frame[frame["utterance"].isin(chosen)].sample(frac=1, random_state=0)
        write_table(fresh, folder / "fresh.csv")
        return folder / "fresh.csv", {name: truth[name] for name in chosen}

    return ask


def series_multiclass(folder: Path) -> Written:
    frame = vowels()
    write_table(frame, folder / "vowels.csv")
    values = [name for name in frame if name.startswith("lpc_")]
    truth = frame.groupby("utterance")["speaker"].first().astype(str).to_dict()
    data = section({**LONG, "values": values, "target": "speaker"})
    return Written(data, series(folder, frame.drop(columns="speaker"), truth))


def series_regression(folder: Path) -> Written:
    """From two coefficients with gaps to the mean of a third, which stands in a second table."""
    frame = vowels()[["utterance", "frame", "lpc_1", "lpc_2", "lpc_3"]]
    truth = frame.groupby("utterance")["lpc_3"].mean()
    frame = frame.drop(columns="lpc_3")
    frame.loc[::50, "lpc_1"] = np.nan
    write_table(frame, folder / "vowels.csv")
    write_table(truth.reset_index(), folder / "means.csv")
    source = {**LONG, "values": ["lpc_1", "lpc_2"], "target": "lpc_3", "targets": "means.csv"}
    data = section({**source, "length": 12}, preprocess={"missing": "mean"})
    return Written(data, series(folder, frame, truth.to_dict()))


def forecast(folder: Path) -> Written:
    """Each window becomes a series of its own, as long as a window."""
    values, targets = ["lpc_1", "lpc_2"], ["lpc_2", "lpc_1"]
    frame = vowels()[["utterance", "frame", *values]]
    write_table(frame, folder / "vowels.csv")
    source = {**LONG, "values": values, "target": targets, "window": 4, "horizon": 2}
    data = section(source, split={"validation": 0.25, "test": 0.25})
    # What follows a window is looked up in the table here, by the window's own values.
    follows = {}
    for _, each in frame.groupby("utterance"):
        for start in range(len(each) - 5):
            window, after = each[start : start + 4], each[start + 4 : start + 6]
            follows[window[values].to_numpy(np.float32).tobytes()] = after[targets].to_numpy().T

    def ask(part: RawPart) -> tuple[Path, Truth]:
        x = np.asarray(part.x, np.float32)
        steps = pd.DataFrame(x.reshape(-1, len(values)), columns=values)
        steps["utterance"], steps["frame"] = np.divmod(np.arange(len(steps)), 4)
        write_table(steps, folder / "fresh.csv")
        return folder / "fresh.csv", {n: follows[each.tobytes()] for n, each in enumerate(x)}

    return Written(data, ask)


def tfrecord(folder: Path) -> Written:
    from tests.data.test_tfrecord import write

    bunch = datasets.load_wine()
    rows = [
        {"x": row, "kind": [name.encode()]}
        for row, name in zip(bunch.data, classes(bunch), strict=True)
    ]
    write(folder / "wine-0.tfrecord", rows[::2], "GZIP")
    write(folder / "wine-1.tfrecord", rows[1::2], "GZIP")
    order = np.concatenate([np.arange(0, 178, 2), np.arange(1, 178, 2)])
    features = {"x": {"dtype": "float32", "shape": [13]}, "kind": {"dtype": "string"}}
    source = {"type": "tfrecord", "path": "wine-*.tfrecord", "features": features, "y": "kind"}
    data = section({**source, "compression": "gzip"})
    return Written(data, arrays(folder, classes(bunch)[order], x=bunch.data[order]))


FUNCTIONS = """
import numpy as np
import pandas as pd
from sklearn import datasets

bunch = datasets.load_wine()
x, y = bunch.data, bunch.target


def arrays():
    return x, y


def frame():
    return pd.read_parquet("wine.parquet")


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(20)


def batches():
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 9

        def __getitem__(self, index):
            rows = slice(index * 20, index * 20 + 20)
            return x[rows], y[rows]

    return Batches()


def ready():
    parts = [slice(0, None, 2), slice(1, None, 4), slice(3, None, 4)]
    named = zip(["train", "validation", "test"], parts, strict=True)
    return {name: (x[rows], y[rows]) for name, rows in named}
"""


def function(folder: Path, name: str) -> Written:
    (folder / "functions.py").write_text(FUNCTIONS)
    bunch = datasets.load_wine()
    rows = np.arange(len(bunch.data))
    order = np.concatenate([rows[::2], rows[1::4], rows[3::4]]) if name == "ready" else rows
    data = section({"type": "python", "load": f"functions:{name}"})
    y = bunch.target.astype(str)
    return Written(data, arrays(folder, y[order], x=bunch.data[order]))


def function_frame(folder: Path) -> Written:
    (folder / "functions.py").write_text(FUNCTIONS)
    frame = wine_with_gaps().drop(columns=["note", "picked"])
    write_table(frame, folder / "wine.parquet")
    data = section({"type": "python", "load": "functions:frame", "target": "kind"})
    return Written(data, table(folder, frame, "kind"))


@dataclass(frozen=True)
class Case:
    """A whole study.

    Attributes:
        write: Writes its data to a folder.
        builder: What takes the samples: `dense`, `convolutional` or `pooled`.
    """

    source: str
    task: str
    write: Callable[[Path], Written]
    builder: str = "dense"


CASES = {
    "sklearn": Case("sklearn", "binary", sklearn_binary),
    "keras": Case("keras", "multiclass", keras_fashion, "convolutional"),
    "npz": Case("npz", "multiclass", npz_multiclass),
    "npz, several inputs": Case("npz", "binary", npz_several_inputs),
    "npz, padded sequences": Case("npz", "multiclass", npz_padded, "pooled"),
    "npy": Case("npy", "regression", npy_regression),
    "CSV": Case("table", "multiclass", csv_multiclass),
    "TSV, labels": Case("table", "multilabel", tsv_multilabel),
    "Parquet": Case("table", "binary", parquet_binary),
    "Parquet, several targets": Case("table", "regression", parquet_several_targets),
    "pictures": Case("images", "multiclass", class_folders, "convolutional"),
    "pictures, a table": Case("images", "multilabel", table_of_labels, "convolutional"),
    "series": Case("sequences", "multiclass", series_multiclass, "pooled"),
    "series, one number": Case("sequences", "regression", series_regression, "pooled"),
    "forecast": Case("sequences", "regression", forecast, "pooled"),
    "TFRecord": Case("tfrecord", "multiclass", tfrecord),
    "function, arrays": Case("python", "multiclass", partial(function, name="arrays")),
    "function, DataFrame": Case("python", "multiclass", function_frame),
    "function, tf.data": Case("python", "multiclass", partial(function, name="dataset")),
    "function, PyDataset": Case("python", "multiclass", partial(function, name="batches")),
    "function, ready parts": Case("python", "multiclass", partial(function, name="ready")),
}
