"""A bundle of sequences: raw series go in, in long form, and come out with their ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.data import open_raw_part
from hpo.errors import DataError
from hpo.export.values import Bundle, ExportTask
from hpo.spec import StudySpec
from hpo.training.channel import TrialTask
from tests.data.test_sequences import long_table
from tests.training.trials import MemoryChannel, make_spec

pytestmark = pytest.mark.keras

BUILDERS = """
import keras


def gru(hp, input_shape, num_outputs, task, mask_value=None):
    head = {"binary": "sigmoid", "multiclass": "softmax", "regression": "linear"}[task]
    x = inputs = keras.Input(input_shape)
    if mask_value is not None:
        x = keras.layers.Masking(mask_value)(x)
    x = keras.layers.GRU(hp.Int("units", 4, 64))(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, head)(x))


# Traced far sooner, for what does not depend on the kind of layer.
def pooled(hp, input_shape, num_outputs, task, mask_value=None):
    head = {"binary": "sigmoid", "multiclass": "softmax"}[task]
    x = inputs = keras.Input(input_shape)
    if mask_value is not None:
        x = keras.layers.Masking(mask_value)(x)
    x = keras.layers.Dense(hp.Int("units", 4, 64), "relu")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(num_outputs, head)(x))


def dense(hp, input_shape, num_outputs):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Dense(hp.Int("units", 4, 64), "relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(num_outputs)(x))
"""

Export = Callable[..., tuple[ExportTask, Bundle]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sequence_builders.py").write_text(BUILDERS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def study(data: dict[str, Any], builder: str = "pooled", metric: str = "val_accuracy") -> StudySpec:
    return make_spec(
        data=data,
        model={"builder": f"sequence_builders:{builder}"},
        objective={"metric": metric, "direction": "maximize"},
        training={"epochs": 2, "batch_size": 8},
        space={"units": 8},
    )


def export(spec: StudySpec, project: Path) -> tuple[ExportTask, Bundle]:
    from hpo.export.bundle import write_bundle
    from hpo.training.bench import prepare
    from hpo.training.preflight import check_study
    from hpo.training.trial import run_trial

    assert not check_study(spec, project).problems
    channel = MemoryChannel()
    bench = prepare(spec, project)
    end = run_trial(bench, TrialTask(0, 3, 1, project / "trial", 0), channel)
    assert end.checkpoint is not None
    task = ExportTask(
        spec=spec,
        project=project,
        number=0,
        params={},
        value=end.progress.best_value or 0.0,
        seed=3,
        checkpoint=end.checkpoint,
        folder=project / "bundle",
        data=bench.data.signature.fingerprint,
    )
    return task, write_bundle(task)


def predict(project: Path, file: Path) -> list[dict[str, Any]]:
    from hpo.export.predict import predict_file

    return predict_file(project / "bundle", file, "x")


SOURCE = {
    "type": "sequences",
    "path": "series.csv",
    "id": "series",
    "time": "t",
    "values": ["a", "b"],
    "target": "label",
}


def test_series_of_any_length_are_classified(project: Path) -> None:
    import keras

    frame = long_table()
    frame.to_csv(project / "series.csv", index=False)
    data = {"source": SOURCE, "preprocess": {"normalize": "standard"}}
    task, _ = export(study(data, "gru"), project)
    part = open_raw_part(task.spec.data, project, "validation")
    names = [f"s{row}" for row in part.rows]
    held = frame[frame["series"].isin(names)].drop(columns="label").sample(frac=1, random_state=1)
    held.to_csv(project / "held.csv", index=False)
    found = {row["id"]: row for row in predict(project, project / "held.csv")}
    assert set(found) == set(names)
    assert set(found["s" + str(part.rows[0])]) == {"id", "prediction", "probability", "classes"}

    model = keras.saving.load_model(project / "bundle" / "model.keras", safe_mode=True)
    assert model.input_shape == (None, None, 2)
    shares = np.asarray(model.predict(part.x, verbose=0))[:, 0]
    said = [found[name]["classes"]["yes"] for name in names]
    np.testing.assert_allclose(said, shares, rtol=1e-5)

    longer = long_table([30, 2])
    longer.to_csv(project / "longer.csv", index=False)
    assert len(predict(project, project / "longer.csv")) == 2
    longer.loc[3, "a"] = np.nan
    longer.to_csv(project / "gaps.csv", index=False)
    with pytest.raises(DataError, match=r"gaps\.csv: 'a' is missing in series 's0' at time 3"):
        predict(project, project / "gaps.csv")
    longer.fillna(np.inf).to_csv(project / "endless.csv", index=False)
    with pytest.raises(
        DataError, match=r"endless\.csv: 'a' should be numeric, but is inf in series 's0' at"
    ):
        predict(project, project / "endless.csv")
    longer.drop(columns="b").to_csv(project / "narrow.csv", index=False)
    with pytest.raises(DataError, match=r"narrow\.csv has no column 'b'"):
        predict(project, project / "narrow.csv")


@pytest.mark.parametrize("target", ["a", ["a", "b"]])
def test_the_next_steps_are_forecast(project: Path, target: Any) -> None:
    frame = long_table([60, 60])
    frame.to_csv(project / "series.csv", index=False)
    source = {**SOURCE, "target": target, "window": 6, "horizon": 3}
    data = {"source": source, "preprocess": {"normalize": "standard"}}
    task, _ = export(study(data, "dense", "val_r2_score"), project)
    facts = json.loads((project / "bundle" / "metrics.json").read_text())
    assert facts["input"]["horizon"] == 3

    test = open_raw_part(task.spec.data, project, "test")
    cut = frame[(frame["series"] != "s0") | (frame["t"] < 57)]
    cut.to_csv(project / "until.csv", index=False)
    rows = predict(project, project / "until.csv")
    assert [row["id"] for row in rows] == ["s0", "s1"]
    forecast = rows[0]["prediction"]
    columns = [forecast] if isinstance(forecast, list) else list(forecast.values())
    assert np.shape(columns) == (len(np.atleast_1d(target)), 3)

    import keras

    model = keras.saving.load_model(project / "bundle" / "model.keras", safe_mode=True)
    # The last window of s0: the steps 51 to 56.
    last = frame[(frame["series"] == "s0") & frame["t"].between(51, 56)]
    window = last[["a", "b"]].to_numpy(np.float32)[None]
    assert any((window[0] == each).all() for each in test.x)
    expected = np.asarray(model.predict(window, verbose=0)).reshape(3, -1).T
    np.testing.assert_allclose(columns, expected, rtol=1e-5)

    frame[frame["t"] < 5].to_csv(project / "short.csv", index=False)
    with pytest.raises(DataError, match="'s0' has 5 steps; the model takes at least 6"):
        predict(project, project / "short.csv")


def test_padded_arrays(project: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 6, 2)).astype(np.float32)
    x[::2, 4:] = np.nan
    np.savez(project / "data.npz", x=x, y=np.arange(40) % 3)
    source = {"type": "npz", "path": "data.npz"}
    data = {"source": source, "preprocess": {"mask": True, "normalize": "minmax"}}
    export(study(data), project)
    assert len(predict(project, project / "data.npz")) == 40
    x[3, 1, 0] = np.nan
    np.savez(project / "gaps.npz", x=x)
    with pytest.raises(DataError, match=r"gaps\.npz: row 3 has a number missing at step 1"):
        predict(project, project / "gaps.npz")
    np.savez(project / "wide.npz", x=np.zeros((2, 6, 3)))
    with pytest.raises(DataError, match=r"takes rows of shape \(None, 2\), received \(6, 3\)"):
        predict(project, project / "wide.npz")


def test_missing_values_are_filled_in_the_bundle_too(project: Path) -> None:
    frame = long_table()
    frame.loc[[4, 9], "a"] = np.nan
    frame.to_csv(project / "series.csv", index=False)
    export(study({"source": SOURCE, "preprocess": {"missing": "mean"}}), project)
    rows = predict(project, project / "series.csv")
    assert np.isfinite([row["probability"] for row in rows]).all()
    assert len(rows) == pd.unique(frame["series"]).size
