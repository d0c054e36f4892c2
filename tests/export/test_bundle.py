from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpo.data import open_raw_part
from hpo.errors import BuilderError, HpoError
from hpo.export.values import ExportTask
from hpo.spec import load_study_file
from hpo.training.channel import TrialTask
from tests.conftest import ROOT, fill_disk
from tests.training.trials import MemoryChannel, make_spec

if TYPE_CHECKING:
    from hpo.data.preprocessing import FittedPreprocessing
    from tests.export.conftest import Exported

pytestmark = pytest.mark.keras

STRANGER = """
import json, sys
from importlib.util import find_spec

assert find_spec("models") is None
assert not [folder for folder in sys.path if folder in ("", sys.argv[3])]
sys.meta_path = [each for each in sys.meta_path if "editable" not in repr(each)]
assert find_spec("hpo") is None
import keras
import numpy as np

model = keras.models.load_model(sys.argv[1], safe_mode=True)
data = np.load(sys.argv[2])
shares = model.predict(data["x"], verbose=0)
right = shares[np.arange(len(shares)), data["y"]]
print(json.dumps({
    "loss": float(-np.log(right).mean() + sum(model.losses)),
    "accuracy": float((shares.argmax(axis=1) == data["y"]).mean()),
}))
"""


def test_a_stranger_gets_the_test_metrics_from_raw_rows(exported: Exported, tmp_path: Path) -> None:
    """In a process that has Keras and neither this service nor the builder."""
    part = open_raw_part(exported.task.spec.data, ROOT, "test")
    np.savez(tmp_path / "test.npz", x=part.x, y=part.y)
    empty = tmp_path / "empty"
    empty.mkdir()
    model = exported.bundle.folder / "model.keras"
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, model, tmp_path / "test.npz", ROOT],
        cwd=empty,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    metrics = json.loads((exported.bundle.folder / "metrics.json").read_text())
    assert found == pytest.approx(metrics["test"], abs=1e-5)


def test_metrics(exported: Exported) -> None:
    metrics = json.loads((exported.bundle.folder / "metrics.json").read_text())
    assert metrics.pop("created").endswith("+00:00")
    assert set(metrics.pop("versions")) == {"keras-hpo", "keras", "tensorflow", "optuna"}
    end, bundle = exported.end, exported.bundle
    best = end.progress.history[(end.progress.best_epoch or 0) - 1]
    assert metrics.pop("validation") == pytest.approx(
        {"loss": best["val_loss"], "accuracy": best["val_accuracy"]}, abs=1e-6
    )
    assert metrics.pop("test") == bundle.test
    assert bundle.test["accuracy"] > 0.8
    assert len(metrics.pop("data_fingerprint")) == 16
    assert metrics.pop("model_parameters") > 1000
    assert metrics == {
        "study": "digits",
        "trial": 5,
        "input": {"type": "arrays"},
        "objective": {
            "metric": "val_accuracy",
            "direction": "maximize",
            "value": exported.task.value,
        },
        "epoch": end.progress.best_epoch,
        "hyperparameters": {
            "activation": "relu",
            "batchnorm": True,
            "depth": 2,
            "dropout": 0.0,
            "l2": 1e-7,
            "learning_rate": 0.01,
            "optimizer": "adam",
            "units_0": 16,
            "units_1": 24,
        },
        "rows": {"train": 1079, "validation": 359, "test": 359},
        "task": "multiclass",
        "class_names": list("0123456789"),
        "outputs": "probabilities",
        "custom_objects": [],
    }


def test_the_configuration_reproduces(exported: Exported, tmp_path: Path) -> None:
    from hpo.training.bench import prepare
    from hpo.training.preflight import check_study
    from hpo.training.trial import run_trial

    spec = load_study_file(exported.bundle.folder / "config.yaml").spec
    assert spec.name == "digits-best"
    assert check_study(spec, ROOT).problems == ()
    channel = MemoryChannel()
    end = run_trial(prepare(spec, ROOT), TrialTask(0, 21, 1, tmp_path, 0), channel)
    assert channel.suggested == {}
    assert end.progress.best_value == pytest.approx(exported.task.value, abs=0.02)


def export(task: ExportTask, folder: Path) -> Any:
    from hpo.export.bundle import write_bundle

    return write_bundle(replace(task, folder=folder))


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_older_bundle_is_replaced_and_other_files_stay(
    exported: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    (folder / "notes").mkdir(parents=True)
    (folder / "model.keras").write_text("old")
    (folder / "predictions.csv").write_text("mine")
    # What an export leaves that was killed while it changed the folders.
    (tmp_path / ".bundle.old").mkdir()
    (tmp_path / ".bundle.old" / "model.keras").write_text("older")
    (tmp_path / ".bundle.old" / "more.csv").write_text("mine, too")
    (tmp_path / ".bundle.tmp").mkdir()
    export(exported.task, folder)
    bundle = ["config.yaml", "metrics.json", "model.keras"]
    assert contents(folder) == sorted([*bundle, "more.csv", "notes", "predictions.csv"])
    assert (folder / "predictions.csv").read_text() == "mine"
    assert (folder / "model.keras").stat().st_size > 100
    assert contents(tmp_path) == ["bundle"]


def test_a_change_of_folders_that_was_killed_between_them(
    exported: Exported, tmp_path: Path
) -> None:
    (tmp_path / ".bundle.old").mkdir()
    (tmp_path / ".bundle.old" / "model.keras").write_text("old")
    (tmp_path / ".bundle.old" / "predictions.csv").write_text("mine")
    task = replace(exported.task, value=exported.task.value + 0.01)
    with pytest.raises(HpoError, match="reached val_accuracy"):
        export(task, tmp_path / "bundle")
    export(exported.task, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "predictions.csv").read_text() == "mine"
    assert contents(tmp_path) == ["bundle"]


def failing_export(task: ExportTask, tmp_path: Path, message: str) -> None:
    """Fails with the message and leaves the older bundle as it was."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.keras").write_text("old")
    with pytest.raises(HpoError, match=message):
        export(task, folder)
    assert contents(folder) == ["model.keras"]
    assert (folder / "model.keras").read_text() == "old"
    assert [name for name in contents(tmp_path) if name.startswith(".")] == []


def test_a_damaged_checkpoint(exported: Exported, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(exported.task.checkpoint.read_bytes()[:-100])
    task = replace(exported.task, checkpoint=damaged)
    failing_export(task, tmp_path, "checkpoint of trial 5 is missing or damaged: .*damaged.npz")


def test_data_that_has_changed_since_the_search(exported: Exported, tmp_path: Path) -> None:
    """Though the model may reach its value on it: rows it has learned from could be test rows."""
    task = replace(exported.task, data="0" * 16)
    failing_export(task, tmp_path, "the data has changed since the search: .* was 0{16}, now it is")


def test_a_value_that_the_model_does_not_reach(exported: Exported, tmp_path: Path) -> None:
    task = replace(exported.task, value=exported.task.value + 0.01)
    failing_export(task, tmp_path, "trial 5 reached val_accuracy .*; nothing was exported")


def test_many_test_rows_are_prepared_some_at_a_time(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 359 rows of 64 numbers, of which 100 fit.
    monkeypatch.setattr("hpo.export.bundle.LARGE", 100 * 64 * 8)
    assert export(exported.task, tmp_path / "bundle").test == exported.bundle.test


def test_layers_that_prepare_rows_otherwise(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Rescaling of another version of Keras might."""
    from hpo.export import bundle

    def shifted(fitted: FittedPreprocessing) -> Any:
        return raw_inputs(replace(fitted, offset=tuple(value + 0.001 for value in fitted.offset)))

    raw_inputs = bundle.raw_inputs
    monkeypatch.setattr(bundle, "raw_inputs", shifted)
    failing_export(
        exported.task, tmp_path, "prepare the test rows' x otherwise than .*; nothing was exported"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"activation"', '"shape"'), "the builder asks for 'shape', which trial 5 does not have"),
        (('range(hp.Int("depth", 1, 6))', "range(1)"), "does not fit the model"),
        (("use_bias=not batchnorm", "use_bias=batchnorm"), "does not fit the model"),
        (
            ("x = keras.layers.Dense(", "x = keras.layers.Dens("),
            r"raised AttributeError: .*line 40",
        ),
        (("Activation(activation)", "Activation('sigmoid')"), "reached val_accuracy"),
    ],
)
def test_a_builder_that_has_changed(
    exported: Exported, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    # A module of its own for each case, for Python keeps what it has imported.
    name = f"changed_{abs(hash(change))}"
    source = (ROOT / "models" / "mlp.py").read_text()
    assert change[0] in source
    (tmp_path / f"{name}.py").write_text(source.replace(*change))
    model = exported.task.spec.model.model_copy(update={"builder": f"{name}:MLP"})
    spec = exported.task.spec.model_copy(update={"model": model})
    failing_export(replace(exported.task, spec=spec, project=tmp_path), tmp_path, message)


SPECIAL = """
import keras


@keras.saving.register_keras_serializable("special")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def twice(x):
    return 2 * x


def custom(hp, input_shape, num_outputs):
    layers = [keras.Input(input_shape), Twice(), keras.layers.Lambda(lambda x: 2 * x)]
    head = keras.layers.Dense(num_outputs, "softmax")
    return keras.Sequential([*layers, keras.layers.Activation(twice), head])


def logits(hp, input_shape, num_outputs):
    x = inputs = keras.Input(input_shape)
    with hp.conditional_scope("kind", hp.Choice("kind", ["deep", "flat"])):
        x = keras.layers.Dense(hp.Int("units", 8, 9), activity_regularizer="l2")(x)
    model = keras.Model(inputs, keras.layers.Dense(num_outputs)(x))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(hp.get("learning_rate")), loss, metrics=["accuracy"])
    return model


def half(hp, input_shape, num_outputs):
    head = keras.layers.Dense(num_outputs, "softmax", dtype="bfloat16")
    return keras.Sequential([keras.Input(input_shape), head])


def averaging(hp, input_shape, num_outputs):
    head = keras.layers.Dense(num_outputs, "softmax")
    model = keras.Sequential([keras.Input(input_shape), head])
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def own_names(hp, input_shape, num_outputs):
    head = keras.layers.Dense(num_outputs, "softmax")
    model = keras.Sequential([keras.Input(input_shape), head])
    optimizer = hp.Choice("optimizer", ["nadam", "adamax"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def own_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def own_metric(y_true, y_pred):
    return keras.ops.mean(y_pred)


def judged(hp, input_shape, num_outputs):
    head = keras.layers.Dense(num_outputs, "softmax")
    model = keras.Sequential([keras.Input(input_shape), head])
    model.compile("adam", own_loss, metrics=["accuracy", own_metric])
    return model


def two_outputs(hp, input_shape):
    head = keras.layers.Dense(2, "softmax")
    return keras.Sequential([keras.Input(input_shape), head])


def values(hp, input_shape):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(1)])


class Late(keras.Model):
    def __init__(self, num_outputs, **kwargs):
        super().__init__(**kwargs)
        self.num_outputs = num_outputs
        self.head = keras.layers.Dense(num_outputs, "softmax")

    def call(self, x):
        return self.head(x)

    def get_config(self):
        return super().get_config() | {"num_outputs": self.num_outputs}


def late(hp, num_outputs):
    return Late(num_outputs)


class Unsavable(Late):
    def get_config(self):
        raise NotImplementedError("no configuration")


def unsavable(hp, num_outputs):
    return Unsavable(num_outputs)
"""


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("special")
    (folder / "special.py").write_text(SPECIAL)
    return folder


def train_and_export(
    project: Path, builder: str, folder: Path, space: dict[str, Any], **sections: Any
) -> Any:
    from hpo.training.bench import prepare
    from hpo.training.trial import run_trial

    spec = make_spec(
        name="n" * 100,
        model={"builder": builder},
        training={"epochs": 1, "batch_size": 256},
        space=space,
        **sections,
    )
    channel = MemoryChannel()
    bench = prepare(spec, project)
    end = run_trial(bench, TrialTask(0, 1, 1, folder / "trial", 0), channel)
    params = {name: channel.suggest(name, each) for name, each in channel.suggested.items()}
    assert end.checkpoint is not None
    value = end.progress.best_value or 0.0
    data = bench.data.signature.fingerprint
    task = ExportTask(spec, project, 0, params, value, 1, end.checkpoint, folder / "bundle", data)
    return export(task, folder / "bundle")


def test_logits_conditions_and_activity(special: Path, tmp_path: Path) -> None:
    from hpo.export.predict import predict_file
    from hpo.training.preflight import check_study

    space = {"learning_rate": {"type": "float", "low": 0.01, "high": 0.1}}
    bundle = train_and_export(special, "special:logits", tmp_path, space)
    assert json.loads((bundle.folder / "metrics.json").read_text())["outputs"] == "logits"
    spec = load_study_file(bundle.folder / "config.yaml").spec
    assert spec.space == {"kind": "deep", "units[kind=deep]": 8, "learning_rate": 0.01}
    assert check_study(spec, special).problems == ()
    np.save(tmp_path / "rows.npy", open_raw_part(spec.data, special, "test").x[:3])
    for row in predict_file(bundle.folder, tmp_path / "rows.npy", "x"):
        assert sum(row["classes"].values()) == pytest.approx(1)


def test_what_keras_alone_can_not_load_is_told(special: Path, tmp_path: Path) -> None:
    from hpo.errors import UsageError
    from hpo.export.predict import predict_file

    bundle = train_and_export(special, "special:custom", tmp_path, {})
    metrics = json.loads((bundle.folder / "metrics.json").read_text())
    assert metrics["custom_objects"] == ["Lambda", "Twice", "twice"]
    with pytest.raises(UsageError, match=r"needs Twice, twice, .* and has Lambda layers, whose"):
        predict_file(bundle.folder, tmp_path / "rows.npy", "x")


def test_names_of_the_trainer_that_the_builder_has_for_itself(
    special: Path, tmp_path: Path
) -> None:
    from hpo.training.preflight import check_study

    bundle = train_and_export(special, "special:own_names", tmp_path, {})
    spec = load_study_file(bundle.folder / "config.yaml").spec
    assert spec.space == {"optimizer": "nadam"}
    assert check_study(spec, special).problems == ()


def test_losses_and_metrics_of_the_user_s_stay_outside(special: Path, tmp_path: Path) -> None:
    from hpo.export.predict import predict_file

    bundle = train_and_export(special, "special:judged", tmp_path, {})
    metrics = json.loads((bundle.folder / "metrics.json").read_text())
    assert metrics["custom_objects"] == []
    assert "own_metric" in metrics["test"]
    np.save(tmp_path / "rows.npy", np.zeros((2, 64)))
    assert len(predict_file(bundle.folder, tmp_path / "rows.npy", "x")) == 2


def test_two_classes_from_two_outputs(special: Path, tmp_path: Path) -> None:
    from hpo.export.predict import predict_file

    data = {"source": {"type": "sklearn", "name": "breast_cancer"}}
    data |= {"preprocess": {"normalize": "standard"}}
    bundle = train_and_export(special, "special:two_outputs", tmp_path, {}, data=data)
    spec = load_study_file(bundle.folder / "config.yaml").spec
    part = open_raw_part(spec.data, special, "test")
    np.save(tmp_path / "rows.npy", part.x)
    rows = predict_file(bundle.folder, tmp_path / "rows.npy", "x")
    assert set(rows[0]["classes"]) == {"malignant", "benign"}
    right = [
        row["prediction"] == ("malignant", "benign")[y] for row, y in zip(rows, part.y, strict=True)
    ]
    assert np.mean(right) == pytest.approx(bundle.test["accuracy"], abs=1e-6)


def test_figures_that_are_no_numbers(special: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(50, 2)), random.normal(size=50)
    project = tmp_path / "project"
    project.mkdir()
    (project / "special.py").write_text(SPECIAL)
    np.savez(project / "data.npz", x=x, y=y)
    np.savez(project / "test.npz", x=x[:9], y=np.full(9, 1e30) + y[:9] * 1e29)
    bundle = train_and_export(
        project,
        "special:values",
        tmp_path,
        {},
        data={"source": {"type": "npz", "path": "data.npz"}, "split": {"test": "test.npz"}},
        objective={"metric": "val_loss", "direction": "minimize"},
    )

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = (bundle.folder / "metrics.json").read_text()
    assert json.loads(text, parse_constant=refuse)["test"]["loss"] is None


def test_a_full_disk(exported: Exported, tmp_path: Path, small_disk: Path) -> None:
    fill_disk(small_disk / "ballast")
    with pytest.raises(HpoError, match=r"can't be written to .*: No space left .*; make room or"):
        export(exported.task, small_disk / "bundle")
    assert not (small_disk / "bundle").exists()


def test_a_model_of_bfloat16(special: Path, tmp_path: Path) -> None:
    from hpo.export.predict import predict_file
    from hpo.training.preflight import check_study

    bundle = train_and_export(special, "special:half", tmp_path, {})
    spec = load_study_file(bundle.folder / "config.yaml").spec
    assert check_study(spec, special).problems == ()
    np.save(tmp_path / "rows.npy", open_raw_part(spec.data, special, "test").x[:3])
    for row in predict_file(bundle.folder, tmp_path / "rows.npy", "x"):
        assert sum(row["classes"].values()) == pytest.approx(1, abs=0.05)


def test_averages_of_the_weights_are_exported(special: Path, tmp_path: Path) -> None:
    import keras

    from hpo.training.checkpoints import load_checkpoint

    bundle = train_and_export(special, "special:averaging", tmp_path, {})
    (path,) = (tmp_path / "trial").glob("epoch-*.zip")
    checkpoint = load_checkpoint(path)
    assert checkpoint is not None
    exported = keras.models.load_model(bundle.folder / "model.keras").get_weights()[-2:]
    *kept, kernel, bias = checkpoint.optimizer
    for weight, trained in zip(exported, (kernel, bias), strict=True):
        assert any(np.array_equal(weight, each) for each in kept)
        assert not np.array_equal(weight, trained)


def test_a_model_that_is_built_by_its_first_rows(special: Path, tmp_path: Path) -> None:
    bundle = train_and_export(special, "special:late", tmp_path, {})
    assert json.loads((bundle.folder / "metrics.json").read_text())["custom_objects"] == ["Late"]


def test_a_model_that_can_not_be_saved(special: Path, tmp_path: Path) -> None:
    from hpo.training.preflight import check_study

    message = "can't save the model of .*NotImplementedError: no configuration"
    with pytest.raises(HpoError, match=message):
        train_and_export(special, "special:unsavable", tmp_path, {})
    assert contents(tmp_path) == ["trial"]
    with pytest.raises(BuilderError, match=message):
        check_study(make_spec(model={"builder": "special:unsavable"}, space={}), special)
