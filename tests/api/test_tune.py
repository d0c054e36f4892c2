"""`hpo.tune` as a user calls it: in scripts, in a notebook's namespace, with worker processes."""

from __future__ import annotations

import gc
import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo.errors import BuilderError, HpoError, StudyMismatchError, StudyStoppedError
from tests.api.conftest import CELL, Script, start_script
from tests.conftest import hpo_command, wait_for
from tests.end_to_end.conftest import BUILDER, EPOCHS, Project, in_the_middle

pytestmark = [pytest.mark.keras, pytest.mark.slow]

SCRIPT = f"""
{CELL}
study = hpo.tune(build, (x, y), trials=4, training={{"epochs": 3}})
"""
IRIS = {"source": {"type": "sklearn", "name": "iris"}, "preprocess": {"normalize": "standard"}}


def command(folder: Path, *arguments: str) -> Any:
    done = subprocess.run(
        hpo_command(*arguments), cwd=folder, capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


@pytest.mark.long
def test_a_script_of_its_own(script: Script, folder: Path) -> None:
    done = script(
        f"""
{SCRIPT}
import json
bundle = study.export()
study.plot().savefig("plot.png")
print(json.dumps({{
    "name": study.name,
    "state": study.status.state,
    "value": study.best.value,
    "params": study.best.params,
    "columns": list(study.trials.columns),
    "values": study.trials["value"].tolist(),
    "test": bundle.test,
    "shown": repr(study),
}}))
"""
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["name"], found["state"]) == ("build", "finished")
    assert set(found["params"]) >= {"depth", "units_0", "dropout"}
    assert {"number", "state", "params_depth", "user_attrs_epochs"} <= set(found["columns"])
    assert found["value"] == max(found["values"])
    assert set(found["test"]) == {"loss", "accuracy"}
    assert found["shown"].startswith("<hpo.Study 'build': 4/4 trials, best val_accuracy")
    assert re.search(r"^[0-3]/4 trials", done.stderr, re.MULTILINE)
    assert "the study 'build' is finished: 4/4 trials" in done.stderr
    assert (folder / "plot.png").stat().st_size > 10_000
    assert (folder / "bundles" / "build" / "model.keras").is_file()
    # The same study for the command.
    assert command(folder, "status", "--json")["finished"] == 4
    assert command(folder, "best", "--json")["value"] == found["value"]
    assert "build was defined in a notebook or a script" in command(folder, "export")

    # Finished: nothing is trained again, but another builder is not taken for this one.
    again = script(SCRIPT + "print(study.best.value == study.trials['value'].max())")
    assert again.stdout.splitlines() == ["True"], again.stderr
    changed = script(SCRIPT.replace('"relu"', '"tanh"'))
    assert "StudyMismatchError" in changed.stderr
    assert "with another source of build: give this one another name" in changed.stderr


def test_a_notebook_s_namespace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells run in a plain namespace; TensorFlow is in use in the process already."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, namespace)
    exec("import keras\nkeras.ops.sum(keras.ops.ones(3))", namespace)
    exec(
        'study = hpo.tune(build, (x, y), trials=3, training={"epochs": 2}, name="cells")', namespace
    )
    study: hpo.Study = namespace["study"]
    assert study.status.complete == 3
    assert "the study 'cells' is finished" in capsys.readouterr().err
    # A longer study goes on in the same process, and its lambda is another builder.
    exec(
        'study = hpo.tune(build, (x, y), trials=4, training={"epochs": 2}, name="cells",'
        " progress=False)",
        namespace,
    )
    assert study.status.complete == 4
    assert capsys.readouterr().err == ""
    assert study.export(folder / "model").folder == folder / "model"
    with pytest.raises(StudyMismatchError) as caught:
        exec(
            "hpo.tune(lambda hp, input_shape, num_outputs: build(hp, input_shape, num_outputs),"
            ' (x + 1, y), trials=5, training={"epochs": 2}, name="cells")',
            namespace,
        )
    for words in ("builder source: the study has", "Give this one another name"):
        assert words in str(caught.value)
    assert "data.source.path: the study has artifacts/cells/data-" in str(caught.value)
    assert len(list((folder / "artifacts" / "cells").glob("data-*"))) == 1


def test_what_trials_keep_from_the_collector_it_gets_back(folder: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, namespace)
    frozen, models = [], []

    def build(hp: Any, input_shape: Any, num_outputs: Any) -> Any:
        frozen.append(gc.get_freeze_count())
        model = namespace["build"](hp, input_shape, num_outputs)
        models.append(weakref.ref(model))
        return model

    gc.unfreeze()
    data = (namespace["x"], namespace["y"])
    hpo.tune(build, data, trials=3, training={"epochs": 1}, name="frozen", progress=False)
    assert frozen[-1] > 0
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert len(models) > 3
    assert not any(model() for model in models)


def test_a_policy_of_the_notebook_holds_in_every_trial_and_afterwards(folder: Path) -> None:
    import keras

    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, namespace)
    policies: list[str] = []

    def build(hp: Any, input_shape: Any, num_outputs: Any) -> Any:
        model = namespace["build"](hp, input_shape, num_outputs)
        policies.extend(layer.dtype_policy.name for layer in model.layers)
        return model

    data = (namespace["x"], namespace["y"])
    before = keras.config.dtype_policy()
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        study = hpo.tune(build, data, trials=2, training={"epochs": 1}, name="half", progress=False)
        study.export()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    assert set(policies) == {"mixed_bfloat16"}


def test_a_builder_that_raises_stops_the_study(folder: Path) -> None:
    calls = []

    def build(hp: Any, input_shape: Any, num_outputs: int) -> Any:
        import keras

        calls.append(hp.Int("units", 4, 8))
        if len(calls) > 3:
            sys.exit("as user code may")
        if len(calls) > 2:
            raise RuntimeError("out of ideas")
        return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(num_outputs)])

    with pytest.raises(BuilderError, match="must put out probabilities"):
        hpo.tune(build, IRIS)
    assert list(folder.iterdir()) == []

    mended = folder / "mended"

    def tired(hp: Any, input_shape: Any, num_outputs: int) -> Any:
        import keras

        calls.append(hp.Int("units", 4, 8))
        if len(calls) == 3 and not mended.exists():
            sys.exit("as user code may")
        if len(calls) > 2 and not mended.exists():
            raise RuntimeError("out of ideas")
        layers = [keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax")]
        return keras.Sequential(layers)

    calls.clear()
    search = {"max_consecutive_failures": 2}

    def tune() -> hpo.Study:
        calls.clear()
        return hpo.tune(tired, IRIS, trials=5, training={"epochs": 1}, search=search, name="tired")

    with pytest.raises(
        StudyStoppedError, match=r"out of ideas.*hpo\.open_study\('tired'\)\.resume"
    ):
        tune()
    study = hpo.open_study("tired")
    assert (study.status.state, study.status.failed) == ("stopped", 3)
    first, *others = study.trials["user_attrs_reason"].dropna()
    assert "SystemExit: as user code may" in first
    assert ["out of ideas" in reason for reason in others] == [True, True]
    mended.touch()
    with pytest.raises(StudyStoppedError):
        tune()
    study.resume()
    assert study.status.state == "running"
    assert (tune().status.complete, study.status.failed) == (2, 3)


def test_a_time_limit_that_passes_is_an_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL, namespace)

    def tune(trials: int) -> hpo.Study:
        search = {"timeout": "1h"}
        data = (namespace["x"], namespace["y"])
        training = {"epochs": 1}
        return hpo.tune(
            namespace["build"], data, trials=trials, training=training, search=search, name="late"
        )

    tune(1)
    with sqlite3.connect(folder / "hpo.db") as database:
        database.execute("UPDATE hpo_studies SET deadline = 1")
    status = tune(2).status
    assert (status.state, status.timed_out, status.finished) == ("stopped", True, 1)
    assert "time limit of the study 'late' has passed: 1 of 2" in capsys.readouterr().err


def test_a_study_whose_trials_all_failed_warns(script: Script) -> None:
    done = script(
        f"""
{CELL}
import warnings
calls = []
def tired(hp, input_shape, num_outputs):
    calls.append(1)
    if len(calls) > 1:
        raise RuntimeError("out of ideas")
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax")])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    study = hpo.tune(tired, (x, y), trials=2, training={{"epochs": 1}}, progress=False)
print([str(each.message) for each in caught if each.filename.endswith("script.py")])
print(study.status.failed)
"""
    )
    assert done.returncode == 0, done.stderr
    words, failed = done.stdout.splitlines()
    assert failed == "2"
    assert "no finished trial of the study 'tired' has a value" in words
    assert "2 of them ended with: exception: RuntimeError: out of ideas" in words
    assert "out of ideas" not in done.stderr


def test_random_numbers_of_the_process_go_on(folder: Path) -> None:
    import keras
    import tensorflow as tf

    def build(hp: Any, input_shape: Any, num_outputs: int) -> Any:
        layers = [keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax")]
        return keras.Sequential(layers)

    def seed() -> None:
        random.seed(1)
        np.random.seed(2)  # noqa: NPY002
        tf.random.set_seed(3)

    def draw() -> list[float]:
        drawn = keras.random.uniform((1,)), tf.random.uniform((1,), seed=None)
        return [random.random(), np.random.rand(), *(float(each[0]) for each in drawn)]  # noqa: NPY002

    keras.utils.set_random_seed(4)
    seed()
    expected = draw()
    keras.utils.set_random_seed(4)
    seed()
    study = hpo.tune(build, IRIS, trials=1, training={"epochs": 1}, name="drawn", progress=False)
    study.export()
    assert draw() == expected


@pytest.mark.parametrize("kind", ["narrow", "wide"])
def test_the_best_params_build_the_model_again(kind: str, folder: Path) -> None:
    import keras
    import keras_tuner

    values: list[dict[str, Any]] = []

    def build(hp: Any, input_shape: Any, num_outputs: int) -> Any:
        layers = [keras.Input(input_shape)]
        chosen = hp.Choice("kind", ["narrow", "wide"])
        with hp.conditional_scope("kind", ["narrow"]):
            if chosen == "narrow":
                layers.append(keras.layers.Dense(hp.Int("units", 2, 8)))
        with hp.conditional_scope("kind", ["wide"]):
            if chosen == "wide":
                layers.append(keras.layers.Dense(hp.Int("units", 9, 16)))
                rate = hp.Float("rate", 0.5, 0.9, sampling="reverse_log")
                layers.append(keras.layers.Dropout(rate))
        layers.append(keras.layers.Dense(hp.Int("last", 3, 30), hp.Choice("by", ["relu", "tanh"])))
        values.append(dict(hp.values))
        return keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])

    space = {"kind": kind, "by": "tanh", "last": 21}
    study = hpo.tune(
        build, IRIS, trials=2, training={"epochs": 1}, space=space, name=kind, progress=False
    )
    best = study.best
    assert best.params in values
    hp = keras_tuner.HyperParameters()
    hp.values = dict(best.params)
    model = build(hp, (4,), 3)
    assert hp.values == best.params
    assert model.count_params() == best.attrs["model_parameters"]
    # A table of trials tells conditions apart, and has no mirror images.
    columns = {f"params_{name}[kind={kind}]" for name in best.params.keys() - space.keys()}
    assert columns <= set(study.trials.columns)
    row = study.trials.set_index("number").loc[best.number]
    assert {row[f"params_units[kind={kind}]"]} == {best.params["units"]}
    if kind == "wide":
        assert row["params_rate[kind=wide]"] == pytest.approx(best.params["rate"])


def test_two_worker_processes(
    folder: Path, forkserver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my_model.py").write_text(BUILDER)
    monkeypatch.syspath_prepend(folder)
    import my_model  # type: ignore[import-not-found]

    study = hpo.tune(
        my_model.build,
        IRIS,
        objective="val_loss",
        trials=4,
        workers=2,
        training={"epochs": 2},
        search={"pruner": "median"},
        name="processes",
    )
    # That was with a fork server of its own.
    monkeypatch.setenv("HPO_FORKSERVER", forkserver)
    assert study.status.finished == 4
    assert study.best.value == study.trials["value"].min()
    assert len(study.plot().axes) > 3
    again = hpo.open_study("processes")
    assert again.best == study.best
    assert set(again.export().test) == {"loss", "accuracy"}
    # What a worker has to say reaches whoever has no terminal.
    (folder / "my_model.py").write_text(BUILDER.replace("relu", "tanh"))
    with pytest.raises(HpoError, match="builder source"):
        hpo.tune(
            "my_model:build",
            IRIS,
            objective="val_loss",
            trials=5,
            workers=2,
            training={"epochs": 2},
            search={"pruner": "median"},
            name="processes",
        )


def test_a_frame_in_worker_processes(
    folder: Path, forkserver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_iris

    monkeypatch.setenv("HPO_FORKSERVER", forkserver)
    (folder / "my_model.py").write_text(BUILDER)
    frame = load_iris(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    study = hpo.tune(
        "my_model:build",
        frame,
        target="target",
        trials=2,
        training={"epochs": 2},
        name="frame",
        preprocess={"normalize": "standard"},
        split={"seed": 3},
    )
    assert study.status.complete == 2
    # The data lies in a file, so workers may go on with the study later.
    assert len(list((folder / "artifacts" / "frame").glob("data-*.parquet"))) == 1


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_and_the_same_call_again(
    workers: int, folder: Path, forkserver: str, script: Script
) -> None:
    text = f"""
{CELL if workers == 1 else CELL.replace(BUILDER, "from my_model import build")}
study = hpo.tune(
    build,
    (x, y),
    trials=5,
    workers={workers},
    training={{"epochs": {EPOCHS}}},
    search={{"pruner": "none"}},
    name="long",
    lease=600,
)
print("resumed", study.trials["user_attrs_resumed_at"].notna().sum())
"""
    (folder / "my_model.py").write_text(BUILDER)
    process = start_script(folder, text, forkserver)

    def goes_on() -> bool:
        running = in_the_middle(Project(folder, forkserver), trials=workers)
        return running is not None and min(running) >= workers

    wait_for(goes_on)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "interrupted; " in errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    left = hpo.open_study("long").status
    assert (left.state, left.running, left.waiting) == ("running", 0, workers)
    assert workers <= left.finished < 5
    done = script(text)
    assert done.returncode == 0, done.stderr
    words = f"going on with the study 'long': {left.finished} of 5 trials are finished"
    assert words in done.stderr
    assert hpo.open_study("long").status.finished == 5
    assert done.stdout.splitlines()[-1] == f"resumed {workers}"
