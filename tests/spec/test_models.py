from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpo.spec import StudySpec
from hpo.spec.models import Search
from hpo.spec.training import by_class

from .conftest import MakeSpec


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5d", 129600),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert Search.model_validate({"trials": 1, "timeout": text}).timeout == seconds


@pytest.mark.parametrize("text", ["", "2", "2 hours", "h", "-2h", "0s", 0, -1, True, [1]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValidationError):
        Search.model_validate({"trials": 1, "timeout": text})


def test_a_spec_survives_json(make_spec: MakeSpec) -> None:
    space: dict[str, Any] = {
        "rate": {"type": "float", "low": 1e-05, "high": 1, "log": True, "when": {"kind": ["a", 2]}},
        "kind": {"type": "categorical", "choices": ["a", 2, True, 0.5]},
        "fixed": 1.0,
        "whole": 1,
        "text": "1e5",
    }
    spec = make_spec(space=space, search={"trials": 3, "sampler": {"type": "tpe", "seed": None}})
    again = StudySpec.from_json(spec.to_json())
    assert again == spec
    assert isinstance(again.space["fixed"], float)
    assert isinstance(again.space["whole"], int)


def test_only_the_budget_may_change_under_a_fingerprint(make_spec: MakeSpec) -> None:
    spec = make_spec()
    assert make_spec(search={"trials": 500, "timeout": "2h"}).fingerprint == spec.fingerprint
    assert make_spec(search={"trials": 5, "sampler": "random"}).fingerprint != spec.fingerprint
    assert make_spec(training={"seed": 1}).fingerprint != spec.fingerprint


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(make_spec: MakeSpec, value: float) -> None:
    with pytest.raises(ValidationError):
        make_spec(space={"rate": value})
    with pytest.raises(ValidationError):
        make_spec(space={"rate": {"type": "float", "low": 0, "high": value}})
    with pytest.raises(ValidationError, match=r"args\n.* can't be stored with the study"):
        make_spec(model={"builder": "m:f", "args": {"deep": [{"bound": value}]}})


@pytest.mark.parametrize("choices", [[1, 1.0], [True, 1], [0, False], ["a", "a"]])
def test_choices_that_optuna_would_mix_up(make_spec: MakeSpec, choices: list[object]) -> None:
    with pytest.raises(ValidationError, match="choices must differ"):
        make_spec(space={"kind": {"type": "categorical", "choices": choices}})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("False", "True"), {"True": 2.0, "False": 1.0}),
        (("false", "true"), {"true": 2.0, "false": 1.0}),
        (("True", "true"), {"true": 2.0, "false": 1.0}),
    ],
)
def test_true_and_false_are_classes_by_either_name(
    names: tuple[str, ...], expected: dict[str, float]
) -> None:
    assert by_class({"true": 2.0, "false": 1.0}, names) == expected
