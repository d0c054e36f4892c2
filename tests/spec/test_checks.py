"""What the checks across entries let pass; what they refuse stands in tests/broken."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpo.spec.checks import study_findings, trainer_findings
from hpo.spec.models import TRAINING_PARAMETERS, IntParameter, Training
from hpo.spec.training import training_value

from .conftest import MakeSpec

INT = {"type": "int", "low": 1, "high": 8}
FLOAT = {"type": "float", "low": 0.1, "high": 0.5}
OPTIMIZERS = {"type": "categorical", "choices": ["sgd", "adam"]}


@pytest.mark.parametrize(
    "space",
    [
        {"depth": INT, "units": {**INT, "repeat": "depth"}},
        {"depth": 3, "units": {**INT, "repeat": "depth"}},
        {"units": {**INT, "repeat": "layers_of_the_builder"}},
        {"units": {**INT, "repeat": "depth"}, "units_low": 3, "other_0": 1},
        # Every database tells these apart, as the service sets it up.
        {"dropout": FLOAT, "Dropout": 0.5, "UNITS": {**INT, "repeat": "depth"}, "units_3": 1},
        {"momentum": {**FLOAT, "when": {"optimizer": "sgd"}}},
        {"momentum": {**FLOAT, "when": {"optimizer": "sgd"}}, "optimizer": OPTIMIZERS},
        {"momentum": {**FLOAT, "when": {"optimizer": "sgd"}}, "optimizer": "adam"},
        {"rate": {**FLOAT, "when": {"block": "residual"}}},
        {"rate": {**FLOAT, "when": {"norm": [True, False]}}, "norm": {"type": "bool"}},
        {"rate": {**FLOAT, "when": {"depth": [1, 8]}}, "depth": INT},
        {"rate": {**FLOAT, "when": {"scale": 1}}, "scale": {"type": "float", "low": 0, "high": 1}},
        {"a": {**INT, "when": {"b": 1}}, "b": {**INT, "when": {"c": 1}}, "c": INT},
        {"learning_rate": {**INT, "low": 1}, "weight_decay": 0, "label_smoothing": FLOAT},
        {"batch_size": {"type": "categorical", "choices": [16, 32]}, "momentum": FLOAT},
        {"learning_rate": {"type": "categorical", "choices": [1, 0.1]}},
    ],
)
def test_a_consistent_space_passes(make_spec: MakeSpec, space: dict[str, Any]) -> None:
    assert list(make_spec(space=space).space) == list(space)


@pytest.mark.parametrize("name", TRAINING_PARAMETERS)
def test_every_trainer_name_is_held_to_its_field(make_spec: MakeSpec, name: str) -> None:
    spec = make_spec(space={name: training_value(Training(), name)})
    assert trainer_findings(spec.space, own=()) == []
    # Whether it is wrong only the builder tells, which may ask for the name itself.
    spec = make_spec(space={name: "nonsense"})
    [found] = trainer_findings(spec.space, own=())
    assert (found.path, found.message.startswith("expected")) == (("space", name), True)
    assert trainer_findings(spec.space, own={name}) == []


TRAINERS: dict[str, Any] = {
    "optimizer": {"type": "categorical", "choices": ["adam", "adamm"]},
    "batch_size": {"type": "float", "low": 16, "high": 64},
    "epochs": {"type": "int", "low": 0, "high": 30},
    "momentum": {"type": "float", "low": 0.5, "high": 1.0},
    "learning_rate": {"type": "float", "low": 0, "high": 0.1},
    "weight_decay": {"type": "bool"},
    "label_smoothing": {"type": "float", "low": 0, "high": 0.2, "repeat": "epochs"},
}


def test_what_the_trainer_can_not_take(make_spec: MakeSpec) -> None:
    found = trainer_findings(make_spec(space=TRAINERS).space, own=())
    assert {finding.path[1:]: finding.message for finding in found} == {
        ("optimizer", "choices", 1): "expected sgd, adam, adamw or rmsprop, received the text "
        '"adamm", did you mean "adam"?',
        ("batch_size", "type"): "expected type int or categorical for batch_size, received float",
        ("epochs", "low"): "expected a number of at least 1, received 0",
        ("momentum", "high"): "expected a number below 1, received 1.0",
        ("learning_rate", "low"): "expected a number above 0, received 0.0",
        ("weight_decay", "type"): "expected type float, int or categorical for weight_decay, "
        "received bool",
        ("label_smoothing", "repeat"): "the trainer asks for one label_smoothing: it can't be "
        "repeated",
    }
    assert trainer_findings(make_spec(space=TRAINERS).space, own=set(TRAINERS)) == []


def test_conditions_that_the_trainer_never_fulfils(make_spec: MakeSpec) -> None:
    when = {"optimizer": ["sgd", "nadam"], "epochs": 3}
    spec = make_spec(space={"momentum": {**FLOAT, "when": when}})
    [found] = trainer_findings(spec.space, own=())
    assert found.path == ("space", "momentum", "when", "optimizer", 1)
    assert trainer_findings(spec.space, own={"optimizer"}) == []


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"depth": INT, "units": {**INT, "repeat": "depth", "when": {"depth": 9}}}, "from 1 to 8"),
        ({"a": {**INT, "repeat": "b"}, "b": {**INT, "when": {"a_0": 1}}, "a_0": 1}, "repeats into"),
        ({"a": {**INT, "repeat": "b"}, "b": {**INT, "repeat": "a"}}, "a needs b needs a"),
        ({"flag": {**INT, "when": {"norm": 1}}, "norm": {"type": "bool"}}, "true or false"),
        ({"rate": {**FLOAT, "when": {"n": True}}, "n": INT}, "a whole number from 1 to 8"),
        ({"units": {**INT, "repeat": "depth"}, "units_3": 1}, "repeats into"),
        ({"units": {**INT, "repeat": "flag"}, "flag": True}, "fixed to true"),
        ({"tab\there": 1}, "visible characters"),
    ],
)
def test_a_contradiction_is_refused(
    make_spec: MakeSpec, space: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_spec(space=space)


@pytest.mark.parametrize(
    ("epochs", "allowed"),
    [
        ({}, True),
        ({"epochs": 5}, False),
        ({"epochs": {"type": "int", "low": 5, "high": 50}}, False),
        ({"epochs": {"type": "int", "low": 6, "high": 50}}, True),
        ({"epochs": {"type": "categorical", "choices": [50, 5]}}, False),
    ],
)
def test_warmup_ends_before_the_shortest_training(
    make_spec: MakeSpec, epochs: dict[str, Any], allowed: bool
) -> None:
    training = {"epochs": 30, "schedule": {"type": "cosine", "warmup": 5}}
    if allowed:
        make_spec(training=training, space=epochs)
        return
    with pytest.raises(ValidationError, match="warmup must be below the number of epochs"):
        make_spec(training=training, space=epochs)


def test_nothing_is_said_about_what_could_not_be_read() -> None:
    units = IntParameter(type="int", low=1, high=8, repeat="depth", when={"optimizer": "nothing"})
    assert study_findings(None, {"units": units}, unread=["depth", "optimizer"]) == []
