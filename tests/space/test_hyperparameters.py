"""Builders written for KerasTuner, unmodified; the values come from a study."""

from __future__ import annotations

from typing import Any

import keras_tuner
import pytest

from hpo.space import SpaceError, Values
from hpo.space.hyperparameters import TrialHyperParameters
from hpo.spec import StudySpec
from hpo.spec.models import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
)

pytestmark = pytest.mark.keras


class Study:
    """Suggests the highest values, or those given, and remembers what it was asked for."""

    def __init__(self, space: dict[str, Any] | None = None, **values: Scalar) -> None:
        content = {
            "version": 1,
            "name": "s",
            "data": {"source": {"type": "sklearn", "name": "iris"}},
            "model": {"builder": "m:f"},
            "objective": {"metric": "loss", "direction": "minimize"},
            "search": {"trials": 1},
            "space": space or {},
        }
        spec = StudySpec.model_validate(content)
        self.asked: dict[str, Parameter] = {}
        self.given = values
        self.values = Values(spec.space, {"optimizer": "adam"}, self._suggest)
        self.hp = TrialHyperParameters(self.values)

    def _suggest(self, name: str, parameter: Parameter) -> Scalar:
        assert name not in self.asked
        self.asked[name] = parameter
        if name in self.given:
            return self.given[name]
        if isinstance(parameter, BoolParameter):
            return True
        if isinstance(parameter, CategoricalParameter):
            return parameter.choices[-1]
        return parameter.high


def test_int() -> None:
    study = Study()
    assert study.hp.Int("a", 2, 5) == 5
    assert study.hp.Int("b", 2, 9, step=3) == 8
    assert study.hp.Int("c", 2, 512, sampling="log") == 512
    assert study.asked == {
        "a": IntParameter(type="int", low=2, high=5),
        "b": IntParameter(type="int", low=2, high=8, step=3),
        "c": IntParameter(type="int", low=2, high=512, log=True),
    }


def test_float() -> None:
    study = Study()
    study.hp.Float("a", 0, 1)
    study.hp.Float("b", 1e-4, 1e-1, sampling="log")
    assert study.asked == {
        "a": FloatParameter(type="float", low=0, high=1),
        "b": FloatParameter(type="float", low=1e-4, high=1e-1, log=True),
    }


@pytest.mark.parametrize(
    ("low", "high", "step", "last"),
    [(0, 1, 0.2, 0.8), (0, 1, 0.25, 1.0), (0.1, 0.9, 0.3, 0.7), (0, 0.5, 0.1, 0.4), (1, 2, 5, 1)],
)
def test_steps_end_where_kerastuner_ends(low: float, high: float, step: float, last: float) -> None:
    study = Study()
    assert study.hp.Float("a", low, high, step=step) == last
    theirs = keras_tuner.HyperParameters()
    theirs.Float("a", low, high, step=step)
    assert max(theirs.space[0].values) == pytest.approx(last)


def test_steps_that_optuna_takes_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    optuna = pytest.importorskip("optuna")
    study = Study()
    study.hp.Float("a", 0, 1, step=0.2)
    study.hp.Float("b", 0.05, 0.7, step=0.05)
    for name, parameter in study.asked.items():
        trial = optuna.trial.FixedTrial({name: parameter.low})
        trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step)
    assert [str(warning.message) for warning in recwarn] == []


def test_steps_on_a_log_scale_become_choices() -> None:
    study = Study()
    study.hp.Int("a", 2, 33, step=2, sampling="log")
    study.hp.Float("b", 0.001, 1, step=10, sampling="log")
    study.hp.Int("c", 1, 8, step=2, sampling="reverse_log")
    assert study.asked["a"] == CategoricalParameter(type="categorical", choices=(2, 4, 8, 16, 32))
    assert study.asked["b"].choices == pytest.approx((0.001, 0.01, 0.1, 1.0))
    for name, parameter in study.asked.items():
        theirs = next(hp for hp in study.hp.space if hp.name == name)
        assert sorted(parameter.choices) == pytest.approx(sorted(theirs.values))


def test_reverse_log_is_a_reversed_scale() -> None:
    study = Study()
    study.hp.Float("a", 0.01, 0.99, sampling="reverse_log")
    study.hp.Int("b", 1, 100, sampling="reverse_log")
    assert study.asked == {
        "a": FloatParameter(type="float", low=0.01, high=0.99, log=True, reverse=True),
        "b": IntParameter(type="int", low=1, high=100, log=True, reverse=True),
    }


def test_reverse_log_has_kerastuner_s_shares() -> None:
    import optuna

    from hpo.study.suggest import suggest

    theirs = keras_tuner.HyperParameters()
    theirs.Float("a", 0.01, 0.99, sampling="reverse_log")
    ours = Study()
    ours.hp.Float("a", 0.01, 0.99, sampling="reverse_log")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = sorted(suggest(study.ask(), "a", ours.asked["a"]) for _ in range(1000))
    for share in (0.25, 0.5, 0.75):
        expected = theirs.space[0].prob_to_value(share)
        assert values[round(1000 * share)] == pytest.approx(expected, abs=0.06)


def test_a_choice_that_stands_twice() -> None:
    study = Study()
    assert study.hp.Choice("a", [1, 2, 2, 1]) == 2
    assert study.asked["a"] == CategoricalParameter(type="categorical", choices=(1, 2))


def test_what_is_active_and_what_has_a_value() -> None:
    study = Study(kind="mlp")
    conditional(study.hp)
    study.hp.Fixed("seed", 7)
    assert study.hp.is_active("kind")
    assert not study.hp.is_active("momentum")
    assert study.hp.values == {"kind": "mlp", "units": 64, "seed": 7}
    with pytest.raises(ValueError, match="momentum is currently inactive"):
        study.hp.get("momentum")


def test_an_inactive_scope_runs_and_gives_none() -> None:
    study = Study(kind="cnn")
    study.hp.Choice("kind", ["mlp", "cnn"])
    with study.hp.conditional_scope("kind", ["mlp"]):
        assert study.hp.Fixed("units", 3) is None
        assert [study.hp.Int(f"units_{i}", 1, 9) for i in range(2)] == [None, None]
    assert list(study.asked) == ["kind"]


def test_choice_boolean_and_fixed() -> None:
    study = Study()
    assert study.hp.Choice("a", ["x", "y"]) == "y"
    assert study.hp.Choice("b", [0.5, 0.25]) == 0.25
    assert study.hp.Boolean("c") is True
    assert study.hp.Fixed("d", 7) == 7
    assert study.asked == {
        "a": CategoricalParameter(type="categorical", choices=("x", "y")),
        "b": CategoricalParameter(type="categorical", choices=(0.5, 0.25)),
        "c": BoolParameter(type="bool"),
    }


def test_what_the_builder_fixes_and_the_study_file_has_an_entry_for() -> None:
    units = {"type": "int", "low": 1, "high": 9, "repeat": "depth"}
    study = Study({"rate": 0.5, "units": units, "depth": 1, "kind": "a"})
    assert study.hp.Fixed("rate", 0.1) == 0.1
    assert study.hp.Fixed("units_0", 3) == 3
    assert study.hp.Fixed("other", 4) == 4
    assert study.values.fixed == {"rate": 0.1, "units": 3}


@pytest.mark.parametrize("space", [{}, {"a": False}, {"a": {"type": "bool"}}])
def test_choice_of_true_and_false(space: dict[str, Any]) -> None:
    study = Study(space, a=False)
    assert not study.hp.Choice("a", [True, False])


def test_a_value_is_asked_for_once() -> None:
    study = Study()
    assert [study.hp.Int("a", 1, 3) for _ in range(3)] == [3, 3, 3]
    assert study.hp.get("a") == study.hp["a"] == 3
    assert "a" in study.hp
    assert "b" not in study.hp


def test_loops() -> None:
    study = Study(depth=2, units_1=9)
    found = [study.hp.Int(f"units_{i}", 4, 16) for i in range(study.hp.Int("depth", 1, 5))]
    assert found == [16, 9]
    assert list(study.asked) == ["depth", "units_0", "units_1"]


def test_the_study_file_narrows_and_fixes() -> None:
    study = Study({"a": {"type": "int", "low": 2, "high": 3}, "b": 0.5, "opt": "sgd"})
    assert study.hp.Int("a", 1, 9) == 3
    assert study.hp.Float("b", 0, 1) == 0.5
    assert study.hp.Choice("opt", ["adam", "sgd"]) == "sgd"
    assert list(study.asked) == ["a"]
    with pytest.raises(SpaceError, match="expected a number from 1 to 2"):
        Study({"b": 0.5}).hp.Float("b", 1, 2)


def test_a_name_that_only_the_study_file_has() -> None:
    study = Study({"extra": {"type": "int", "low": 2, "high": 3}, "text": "abc"})
    assert "extra" in study.hp
    assert (study.hp.get("extra"), study.hp["text"]) == (3, "abc")
    with pytest.raises(KeyError, match="nothing does not exist"):
        study.hp.get("nothing")


def test_name_scopes() -> None:
    study = Study({"outer/a": 4})
    with study.hp.name_scope("outer"):
        assert study.hp.Int("a", 1, 9) == 4
        with study.hp.name_scope("inner"):
            assert study.hp.Int("a", 1, 9) == 9
        assert study.hp.get("a") == 4
    assert list(study.asked) == ["outer/inner/a"]


def conditional(hp: Any) -> dict[str, Any]:
    """The same name under two conditions, each with a range of its own."""
    kind = hp.Choice("kind", ["mlp", "cnn"])
    found = {}
    with hp.conditional_scope("kind", ["mlp"]):
        found["mlp"] = hp.Int("units", 8, 64)
    with hp.conditional_scope("kind", ["cnn"]):
        found["cnn"] = hp.Choice("units", [3, 5])
    found["momentum"] = hp.Float("momentum", 0, 0.9, parent_name="kind", parent_values="cnn")
    return {"kind": kind, **found}


def test_conditions() -> None:
    mlp, cnn = Study(kind="mlp"), Study(kind="cnn")
    assert conditional(mlp.hp) == {"kind": "mlp", "mlp": 64, "cnn": None, "momentum": None}
    assert conditional(cnn.hp) == {"kind": "cnn", "mlp": None, "cnn": 5, "momentum": 0.9}
    assert list(mlp.asked) == ["kind", "units[kind=mlp]"]
    assert list(cnn.asked) == ["kind", "units[kind=cnn]", "momentum[kind=cnn]"]
    assert "momentum" not in mlp.hp
    assert cnn.hp.get("units") == 5


def test_the_name_in_the_study_does_not_depend_on_what_was_declared_before() -> None:
    study = Study(kind="cnn")
    study.hp.Choice("kind", ["mlp", "cnn"])
    with study.hp.conditional_scope("kind", ["cnn"]):
        study.hp.Choice("units", [3, 5])
    assert list(study.asked) == ["kind", "units[kind=cnn]"]


@pytest.mark.parametrize("name", ["units", "units[kind=cnn]"])
def test_the_study_file_may_say_a_conditional_name_either_way(name: str) -> None:
    study = Study({name: 3, "kind": "cnn"})
    assert conditional(study.hp)["cnn"] == 3
    assert list(study.asked) == ["momentum[kind=cnn]"]


def test_conditions_within_conditions_and_scopes() -> None:
    study = Study()
    with study.hp.name_scope("net"):
        study.hp.Boolean("deep")
        with study.hp.conditional_scope("deep", [True]):
            study.hp.Int("depth", 1, 2)
            with study.hp.conditional_scope("depth", [1, 2]):
                assert study.hp.Int("width", 1, 4) == 4
    assert list(study.asked)[-1] == "net/width[net/deep=True,net/depth=1|2]"


def test_a_copy_has_the_values_and_searches_nothing_new() -> None:
    study = Study({"narrowed": 2})
    study.hp.Int("a", 1, 3)
    conditional(study.hp)
    twin = study.hp.copy()
    assert isinstance(twin, TrialHyperParameters)
    assert twin.values == study.hp.values
    assert [hp.name for hp in twin.space] == [hp.name for hp in study.hp.space]
    asked = list(study.asked)
    assert twin.Int("a", 1, 3) == 3
    assert twin.Int("new", 4, 9) == 4
    assert twin.Int("narrowed", 1, 9) == 2
    assert list(study.asked) == asked
    assert "new" not in study.hp


def test_a_hypermodel_that_is_not_tunable() -> None:
    class Inner(keras_tuner.HyperModel):
        def build(self, hp: Any) -> Any:
            return hp.Int("units", 1, 8, default=5)

    study = Study()
    assert Inner(tunable=False).build(study.hp) == 5
    assert study.asked == {}
    assert Inner().build(study.hp) == 8
