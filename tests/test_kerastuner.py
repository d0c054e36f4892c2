"""KerasTuner's own Tuner with an oracle that asks an Optuna study."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import optuna
import pytest
from optuna.trial import TrialState

from hpo.errors import StorageError, StudyMismatchError, UsageError
from hpo.kerastuner import OptunaOracle
from hpo.study.database import Database
from hpo.study.studies import open_study
from tests.conftest import Hpo
from tests.study.rooms import new_study

pytestmark = pytest.mark.keras


class Tuner(keras_tuner.Tuner):
    """KerasTuner's own, without tensorboard, which is not installed here."""

    def _configure_tensorboard_dir(self, callbacks: Any, trial: Any, execution: int = 0) -> None:
        pass


class Computed(keras_tuner.Tuner):
    """Computes a value instead of training, with every kind of hyperparameter."""

    fail: tuple[str, ...] = ()

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        if trial.trial_id in self.fail:
            raise RuntimeError("no luck")
        hp = trial.hyperparameters
        kind = hp.Choice("kind", ["near", "far"])
        with hp.conditional_scope("kind", ["near"]):
            near = hp.Float("x", 0.0, 1.0)
        with hp.conditional_scope("kind", ["far"]):
            far = hp.Int("x", 10, 90, step=10)
        x = near if kind == "near" else far
        hp.Float("momentum", 0.01, 0.99, sampling="reverse_log")
        hp.Float("rate", 0.001, 1, step=10, sampling="log")
        hp.Fixed("seed", 3)
        return {"distance": abs(x - 0.5), "other": 1.0} | ({"flag": 1.0} if hp.Boolean("b") else {})


Make = Callable[..., Any]


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hpo.db'}"


@pytest.fixture
def tune(tmp_path: Path, storage: str) -> Make:
    """A tuner of one project, as a script would make it each time it runs."""

    def make(trials: int = 8, kind: Any = Computed, overwrite: bool = False, **options: Any) -> Any:
        options = {"sampler": "tpe", "seed": 3} | options
        oracle = OptunaOracle(
            keras_tuner.Objective("distance", "min"),
            max_trials=trials,
            storage=storage,
            study_name="s",
            **options,
        )
        return kind(oracle=oracle, directory=tmp_path, project_name="p", overwrite=overwrite)

    return make


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False)


def search(tuner: Any) -> None:
    tuner.search(verbose=0)


def test_trials_stand_in_the_study(tune: Make, storage: str) -> None:
    tuner = tune(trials=30, sampler="random")
    search(tuner)
    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state for trial in ended(study)] == [TrialState.COMPLETE] * 30
    assert study.metric_names == ["distance"]
    for theirs, ours in zip(tuner.oracle.trials.values(), ended(study), strict=True):
        values = theirs.hyperparameters.values
        assert ours.value == theirs.score
        assert ours.user_attrs["kerastuner_trial"] == theirs.trial_id
        assert ours.user_attrs["other"] == 1.0
        name = f"x[kind={values['kind']}]"
        assert set(ours.params) == {"kind", name, "momentum[mirrored]", "rate", "b"}
        assert ours.params["momentum[mirrored]"] == pytest.approx(1 - values["momentum"])
        assert {n: ours.params[n] for n in ("kind", "rate", "b")} == {
            n: values[n] for n in ("kind", "rate", "b")
        }
        assert ours.params[name] == values["x"]
    # Each range is KerasTuner's.
    far = [t.params["x[kind=far]"] for t in ended(study) if t.params["kind"] == "far"]
    assert set(far) <= set(range(10, 91, 10))
    best = tuner.get_best_hyperparameters()[0]
    assert study.best_trial.params["kind"] == best.get("kind")


def test_the_sampler_learns(tune: Make, storage: str) -> None:
    search(tune(trials=40))
    values = [trial.value for trial in ended(optuna.load_study(study_name="s", storage=storage))]
    assert min(values) < 0.02
    assert sum(value < 1 for value in values[20:]) > sum(value < 1 for value in values[:10])


def test_the_same_seed_tries_the_same(tune: Make, tmp_path: Path) -> None:
    search(one := tune(trials=14))
    found = [trial.params for trial in ended(one.oracle.study)]
    shutil.rmtree(tmp_path / "p")
    (tmp_path / "hpo.db").unlink()
    search(other := tune(trials=14))
    assert [trial.params for trial in ended(other.oracle.study)] == found


def test_a_script_that_runs_again_goes_on(tune: Make, tmp_path: Path) -> None:
    search(tune(trials=5))
    search(tuner := tune(trials=12))
    assert len(ended(tuner.oracle.study)) == len(tuner.oracle.trials) == 12
    whole = [trial.params for trial in ended(tuner.oracle.study)]
    shutil.rmtree(tmp_path / "p")
    (tmp_path / "hpo.db").unlink()
    search(tuner := tune(trials=12))
    assert [trial.params for trial in ended(tuner.oracle.study)] == whole


class KilledError(BaseException):
    pass


class Killed(Computed):
    """Dies in the middle of its third trial."""

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        if trial.trial_id == "2":
            raise KilledError
        return super().run_trial(trial)


def test_a_killed_script_goes_on_with_its_trial(tune: Make) -> None:
    with pytest.raises(KilledError):
        search(tune(trials=5, kind=Killed))
    search(tuner := tune(trials=5))
    states = [trial.state for trial in ended(tuner.oracle.study)]
    assert states == [TrialState.COMPLETE] * 5


def test_a_script_killed_before_it_noted_its_trial(tune: Make, tmp_path: Path) -> None:
    search(tune(trials=2))
    tuner = tune(trials=4)
    tuner.oracle.populate_space("2")
    search(tuner := tune(trials=4))
    states = [trial.state for trial in ended(tuner.oracle.study)]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] + [TrialState.COMPLETE] * 2


def test_a_script_killed_before_it_told_the_study(tune: Make, monkeypatch: Any) -> None:
    tuner = tune(trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(OptunaOracle, "_tell_ended", lambda self: None)
        search(tuner)
    assert {trial.state for trial in ended(tuner.oracle.study)} == {TrialState.RUNNING}
    again = tune(trials=2)
    assert [t.value for t in ended(again.oracle.study)] == [
        trial.score for trial in tuner.oracle.trials.values()
    ]


def test_failed_trials_and_retries(tune: Make) -> None:
    class Unlucky(Computed):
        fail = ("1", "3")

    tuner = tune(trials=5, kind=Unlucky, max_retries_per_trial=1)
    search(tuner)
    states = [trial.state.name for trial in ended(tuner.oracle.study)]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert "no luck" in ended(tuner.oracle.study)[1].user_attrs["reason"]


def test_too_many_failures_in_a_row(tune: Make) -> None:
    class Unlucky(Computed):
        fail = ("0", "1", "2")

    tuner = tune(trials=5, kind=Unlucky)
    with pytest.raises(RuntimeError, match="consecutive failures exceeded"):
        search(tuner)
    assert [trial.state.name for trial in ended(tuner.oracle.study)] == ["FAIL"] * 3


def test_a_new_project_learns_from_the_study(tune: Make) -> None:
    search(tune(trials=4))
    search(tuner := tune(trials=4, overwrite=True))
    assert len(ended(tuner.oracle.study)) == 8
    assert len(tuner.oracle.trials) == 4


def test_brute_force_ends_when_everything_is_tried(tmp_path: Path, storage: str) -> None:
    class Small(keras_tuner.Tuner):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
            return float(trial.hyperparameters.Choice("a", [1, 2, 3]))

    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Choice("a", [1, 2, 3])
    oracle = OptunaOracle(
        max_trials=99,
        storage=storage,
        study_name="b",
        sampler="brute_force",
        hyperparameters=hyperparameters,
    )
    search(Small(oracle=oracle, directory=tmp_path, project_name="b"))
    assert sorted(trial.value for trial in ended(oracle.study)) == [1.0, 2.0, 3.0]


def test_an_optuna_sampler(tune: Make) -> None:
    sampler = optuna.samplers.RandomSampler(seed=1)
    search(tuner := tune(trials=3, sampler=sampler))
    assert tuner.oracle.study.sampler is sampler


def test_what_does_not_fit(tune: Make, storage: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"one of the samplers tpe, .*; received 'tqe'"):
        tune(sampler="tqe")
    with pytest.raises(UsageError, match="not a database URL"):
        OptunaOracle("val_loss", storage="nothing")
    tune()
    with pytest.raises(StudyMismatchError, match="is there to minimize"):
        OptunaOracle("val_accuracy", storage=storage, study_name="s")
    search(tune(trials=2))
    (tmp_path / "hpo.db").unlink()
    with pytest.raises(StudyMismatchError, match="lacks trials of the KerasTuner project"):
        tune()
    with pytest.raises(StorageError, match="postgresql"):
        OptunaOracle("val_loss", storage="postgresql://u:p@127.0.0.1:9/d")


def test_a_study_of_a_study_file_is_left_alone(storage: str) -> None:
    from hpo.study.schema import create_schema

    database = Database(storage, create=True)
    create_schema(database)
    record = new_study(database, trials=2)
    with pytest.raises(StudyMismatchError, match="was made from a study file"):
        OptunaOracle("val_accuracy", storage=storage, study_name=record.name)
    database.close()


def test_what_the_commands_say_of_it(tune: Make, storage: str, hpo: Hpo) -> None:
    search(tune(trials=2))
    done = hpo("status", "s", "--storage", storage)
    assert (done.returncode, done.stdout) == (2, "")
    assert "belongs to a script with keras_tuner.Tuner and OptunaOracle" in done.stderr
    assert "hpo dashboard" in done.stderr
    database = Database(storage)
    with pytest.raises(StudyMismatchError):
        open_study(database, "s")
    database.close()


def test_a_real_tuner_trains_on_real_data(tmp_path: Path, storage: str) -> None:
    import keras
    from sklearn.datasets import load_iris

    def build(hp: Any) -> Any:
        units = [hp.Int(f"units_{i}", 8, 32) for i in range(hp.Int("depth", 1, 2))]
        body = [keras.layers.Dense(each, "relu") for each in units]
        model = keras.Sequential([keras.Input((4,)), *body, keras.layers.Dense(3, "softmax")])
        loss = "sparse_categorical_crossentropy"
        rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        return model

    oracle = OptunaOracle("val_accuracy", max_trials=3, storage=storage, study_name="i", seed=1)
    tuner = Tuner(oracle=oracle, hypermodel=build, directory=tmp_path, project_name="i")
    x, y = load_iris(return_X_y=True)
    tuner.search(x[::2], y[::2], validation_data=(x[1::2], y[1::2]), epochs=2, verbose=0)
    trials = ended(oracle.study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    # A name from a loop had its default in the trial that met it first; the study knows it.
    for trial in trials:
        names = {"depth", "rate", *(f"units_{i}" for i in range(trial.params["depth"]))}
        assert set(trial.params) >= names
    assert tuner.get_best_models()[0].predict(x[:2], verbose=0).shape == (2, 3)
    assert set(trials[0].user_attrs) >= {"val_accuracy", "val_loss", "accuracy"}
