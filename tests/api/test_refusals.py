"""What `hpo.tune` refuses before it looks at data or Keras, and how builders are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo.api.builders import find_builder
from hpo.api.objectives import direction_of, read_objective
from hpo.errors import BuilderError, StudyFileError, UsageError

DATA = (np.zeros((20, 2)), np.repeat([0, 1], 10))


def build(hp: Any) -> Any: ...


def test_a_metric_of_an_unclear_name() -> None:
    with pytest.raises(UsageError, match=r"'val_score' does not say .* give direction"):
        direction_of("val_score", None)
    assert direction_of("val_score", "minimize") == "minimize"


@pytest.mark.parametrize("objective", [None, ["val_loss"], 3])
def test_what_is_no_objective(objective: Any) -> None:
    with pytest.raises(UsageError, match=r"^objective must be the name of one metric, .* received"):
        read_objective(objective, None)


@pytest.mark.keras
def test_an_objective_of_kerastuner() -> None:
    import keras_tuner

    score = keras_tuner.Objective("val_score", "max")
    named = {"metric": "val_score", "direction": "maximize"}
    assert read_objective(score, None) == read_objective(score, "maximize") == named
    with pytest.raises(UsageError, match="'minimize' contradicts the objective, which says max"):
        read_objective(score, "minimize")


@pytest.mark.keras
def test_a_model_is_no_builder() -> None:
    import keras

    with pytest.raises(BuilderError, match="is a model, a Sequential; expected a function"):
        find_builder(keras.Sequential())


def test_how_a_builder_is_named() -> None:
    class Tuner:
        def build(self, hp: Any) -> Any: ...

    inner = find_builder(Tuner())
    assert (inner.reference, inner.study_name) == ("__main__:Tuner", "Tuner")
    module = find_builder(build)
    assert (module.reference, module.handed) == ("tests.api.test_refusals:build", None)
    assert module.study_name == "test_refusals-build"
    assert find_builder(lambda hp: hp).reference == "__main__:lambda"
    assert find_builder("models.mlp:MLP").study_name == "mlp-MLP"
    with pytest.raises(BuilderError, match="build must be a function, a HyperModel or text"):
        find_builder(42)


def refused(tmp_path: Path, **arguments: Any) -> str:
    with pytest.raises(UsageError) as caught:
        hpo.tune(lambda hp: hp, DATA, project=tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def test_several_workers_need_a_module(tmp_path: Path) -> None:
    words = refused(tmp_path, workers=2)
    assert "exists in this process alone" in words
    assert "move it into a module" in words


def test_a_bad_entry_is_told_with_its_path(tmp_path: Path) -> None:
    words = refused(
        tmp_path,
        space={"dropout": {"type": "float", "low": 0.5, "high": 0}, "rate": {"tipe": "int"}},
        training={"epoch": 3},
        name="?",
    )
    for path in ("space.dropout", "space.rate", "training.epoch", "name"):
        assert f"\n  hpo.tune: {path}" in words
    assert "epochs" in words


def test_values_of_numpy_are_plain(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        hpo.tune(
            build,
            DATA,
            project=tmp_path,
            space={"units": {"type": "int", "low": np.int64(1), "high": np.int64(4)}},
            training={"epochs": np.int32(3), "metrics": ("AUC",)},
            search={"sampler": "nonsense"},
        )
    assert [problem.path for problem in caught.value.problems] == ["search.sampler"]


def test_nothing_is_said_twice(tmp_path: Path) -> None:
    assert "trials is given twice" in refused(tmp_path, search={"trials": 3})
    assert "not a database URL" in refused(tmp_path, storage="hpo.db")


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("training", "epochs", "training: expected a mapping, received the text"),
        ("training", [1], "training: expected a mapping, received a list"),
        ("search", "tpe", "search: expected a mapping, received the text"),
        ("split", "x", "data.split: expected a mapping, received the text"),
        ("args", [1], "model.args: expected a mapping, received a list"),
        ("space", {1: 3}, "space[1]: expected text, received 1"),
        ("name", 3, "name: expected text, received 3"),
        ("objective", None, "objective must be the name of one metric"),
        ("progress", "no", "progress must be True or False, received 'no'"),
        ("artifacts", 3, "artifacts must be text or a path, received int"),
    ],
)
def test_an_argument_of_another_kind(tmp_path: Path, argument: str, value: Any, words: str) -> None:
    assert words in refused(tmp_path, **{argument: value})


def test_ready_parts_and_a_split_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"data\.split: expected a mapping"):
        hpo.tune(build, {"train": DATA, "test": DATA}, project=tmp_path, split="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", None])
def test_what_is_no_number_of_workers(tmp_path: Path, workers: Any) -> None:
    words = refused(tmp_path, workers=workers)
    assert words == f"workers must be a whole number of 1 or more, received {workers!r}"


@pytest.mark.parametrize("lease", [0, -1, "30", None, float("inf"), float("nan")])
def test_what_is_no_lease(tmp_path: Path, lease: Any) -> None:
    words = refused(tmp_path, lease=lease)
    assert words == f"lease must be a number of seconds of 1 or more, received {lease!r}"


def test_a_storage_and_a_project_of_another_kind(tmp_path: Path) -> None:
    assert "storage must be a database URL" in refused(tmp_path, storage=3)
    with pytest.raises(UsageError, match="project must be text or a path, received int"):
        hpo.open_study("any", project=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nowhere is not there; make it"):
        hpo.tune(lambda hp: hp, DATA, project=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nowhere is not there; make it"):
        hpo.open_study("any", project=tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
