from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from hpo.errors import BuilderError
from hpo.space import SpaceError, Values
from hpo.space.values import in_words
from hpo.spec.models import Parameter, Scalar, SpaceEntry

_ENTRY: TypeAdapter[Any] = TypeAdapter(SpaceEntry)
_DEFAULTS: dict[str, Scalar] = {
    "optimizer": "adam",
    "momentum": 0.9,
    "batch_size": 32,
    "learning_rate": 0.001,
}


def parameter(content: dict[str, Any]) -> Parameter:
    found = _ENTRY.validate_python(content)
    assert isinstance(found, Parameter)
    return found


def a_float(low: float = 0.0, high: float = 1.0, **more: Any) -> Parameter:
    return parameter({"type": "float", "low": low, "high": high, **more})


def an_int(low: int = 1, high: int = 9, **more: Any) -> Parameter:
    return parameter({"type": "int", "low": low, "high": high, **more})


def a_choice(*choices: Any, **more: Any) -> Parameter:
    return parameter({"type": "categorical", "choices": choices, **more})


def a_bool(**more: Any) -> Parameter:
    return parameter({"type": "bool", **more})


class Suggestions:
    """Suggests what it was given, and remembers in which order and range it was asked."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.asked: dict[str, Parameter] = {}

    def __call__(self, name: str, range_: Parameter) -> Any:
        assert name not in self.asked, f"{name} was suggested twice"
        self.asked[name] = range_
        return self.values[name]


def values_of(space: Mapping[str, Any], **suggested: Any) -> tuple[Values, Suggestions]:
    suggestions = Suggestions(suggested)
    entries = {name: _ENTRY.validate_python(entry) for name, entry in space.items()}
    return Values(entries, _DEFAULTS, suggestions), suggestions


# What the builder declares.


def test_declared_parameter_is_suggested_in_the_builders_range() -> None:
    values, suggestions = values_of({}, dropout=0.3)
    assert values.take("dropout", a_float(), 0.1) == 0.3
    assert suggestions.asked == {"dropout": a_float()}
    assert values.declared == {"dropout": a_float()}


def test_each_parameter_is_suggested_once() -> None:
    values, suggestions = values_of({}, dropout=0.3)
    assert [values.take("dropout", a_float(), 0.1) for _ in range(3)] == [0.3] * 3
    assert len(suggestions.asked) == 1


def test_name_that_nobody_declares_has_its_default() -> None:
    values, suggestions = values_of({})
    assert values.take("dropout", None, 0.1) == 0.1
    assert suggestions.asked == {}


# What the study file fixes.


@pytest.mark.parametrize(
    ("entry", "declared"),
    [
        (0.25, a_float()),
        (3, an_int()),
        (True, a_bool()),
        (False, a_bool()),
        ("sgd", a_choice("adam", "sgd")),
        (2, a_choice(1, 2)),
        (True, a_choice(True, "auto")),
    ],
)
def test_fixed_value_is_not_suggested(entry: Any, declared: Parameter) -> None:
    values, suggestions = values_of({"x": entry})
    assert values.take("x", declared, None) == entry
    assert suggestions.asked == {}
    assert values.asked == {"x"}


@pytest.mark.parametrize(
    ("entry", "declared", "value"),
    [
        (0, a_float(), 0.0),
        (1.0, a_choice(1, 2), 1),
        (True, a_choice(1, 0), 1),
        (0, a_choice(False, True), False),
    ],
)
def test_fixed_value_has_the_kind_that_the_builder_expects(
    entry: Any, declared: Parameter, value: Any
) -> None:
    values, _ = values_of({"x": entry})
    taken = values.take("x", declared, None)
    assert (taken, type(taken)) == (value, type(value))


@pytest.mark.parametrize(
    ("entry", "declared", "words"),
    [
        (2, a_float(), "a number from 0 to 1 as the builder, received 2"),
        ("low", a_float(), "a number from 0 to 1 as the builder, received 'low'"),
        (True, a_float(), "a number from 0 to 1 as the builder, received True"),
        (2.5, an_int(), "a whole number from 1 to 9 as the builder, received 2.5"),
        (10, an_int(), "a whole number from 1 to 9 as the builder, received 10"),
        (1, a_bool(), "true or false as the builder, received 1"),
        ("true", a_bool(), "true or false as the builder, received 'true'"),
        ("rmsprop", a_choice("adam", "sgd"), "one of 'adam', 'sgd' as the builder"),
        (True, a_choice(1, 2), "one of 1, 2 as the builder, received True"),
        (1, a_choice(True, "auto"), "one of True, 'auto' as the builder, received 1"),
    ],
)
def test_fixed_value_outside_of_the_builders_range(
    entry: Any, declared: Parameter, words: str
) -> None:
    values, _ = values_of({"x": entry})
    with pytest.raises(SpaceError, match=f"^expected {words}") as caught:
        values.take("x", declared, None)
    assert caught.value.entry == "x"


# What the study file narrows.


@pytest.mark.parametrize(
    ("entry", "declared"),
    [
        (a_float(0.1, 0.5), a_float()),
        (a_float(0.0, 1.0), a_float()),
        (a_float(0.1, 0.5, log=True), a_float()),
        (an_int(2, 4), an_int()),
        (a_choice("sgd"), a_choice("adam", "sgd")),
        (a_choice(2, 4), an_int()),
        (a_choice(0.1, 0.5), a_float()),
        (a_choice(False), a_bool()),
        (a_bool(), a_bool()),
        (a_bool(), a_choice(1, 0)),
        (a_bool(), a_choice(True, False)),
    ],
)
def test_entry_narrows_the_builders_range(entry: Parameter, declared: Parameter) -> None:
    values, suggestions = values_of({"x": entry}, x="suggested")
    assert values.take("x", declared, None) == "suggested"
    assert suggestions.asked == {"x": entry}


@pytest.mark.parametrize(
    ("entry", "declared", "words"),
    [
        (a_float(0, 2), a_float(), "received 2.0"),
        (a_float(-1, 1), a_float(), "received -1.0"),
        (an_int(0, 5), an_int(), "received 0"),
        (an_int(0, 1), a_float(), "a number from 0 to 1 as the builder, received int"),
        (a_float(1, 2), an_int(), "a whole number from 1 to 9 as the builder, received float"),
        (a_float(), a_choice("a", "b"), "one of 'a', 'b' as the builder, received float"),
        (a_float(), a_bool(), "true or false as the builder, received float"),
        (a_bool(), a_float(), "received False"),
        (a_bool(), a_choice(1, 2), "received False"),
        (a_bool(), a_choice("adam", "sgd"), "received False"),
        (a_choice("adam", "rmsprop"), a_choice("adam", "sgd"), "received 'rmsprop'"),
        (a_choice(0, 1), a_bool(), "received 0"),
        (a_choice(1, 2.5), an_int(), "received 2.5"),
    ],
)
def test_entry_outside_of_the_builders_range(
    entry: Parameter, declared: Parameter, words: str
) -> None:
    values, suggestions = values_of({"x": entry}, x=1)
    with pytest.raises(SpaceError, match=words) as caught:
        values.take("x", declared, None)
    assert caught.value.entry == "x"
    assert suggestions.asked == {}


# What the study file adds.


def test_entry_adds_what_the_builder_only_reads() -> None:
    values, suggestions = values_of({"width": an_int(2, 4)}, width=3)
    assert values.adds("width")
    assert not values.adds("height")
    assert values.take("width", None, None) == 3
    assert suggestions.asked == {"width": an_int(2, 4)}
    assert values.declared == {}


def test_training_values() -> None:
    space = {"batch_size": 64, "learning_rate": a_float(1e-4, 1e-1)}
    values, _ = values_of(space, learning_rate=0.01)
    assert values.training("batch_size") == 64
    assert values.training("learning_rate") == 0.01
    assert values.training("optimizer") == "adam"
    assert values.asked == {"batch_size", "learning_rate"}


# Conditions.


@pytest.mark.parametrize(("optimizer", "value"), [("sgd", 0.5), ("adam", 0.9)])
def test_inactive_parameter_has_its_default(optimizer: str, value: float) -> None:
    space = {
        "optimizer": a_choice("adam", "sgd"),
        "momentum": a_float(0, 0.99, when={"optimizer": "sgd"}),
    }
    values, suggestions = values_of(space, optimizer=optimizer, momentum=0.5)
    assert values.training("momentum") == value
    assert list(suggestions.asked) == (
        ["optimizer", "momentum"] if optimizer == "sgd" else ["optimizer"]
    )


def test_inactive_declared_parameter_has_the_builders_default() -> None:
    space = {"norm": False, "epsilon": a_float(0, 1, when={"norm": True})}
    values, suggestions = values_of(space)
    assert values.take("epsilon", a_float(), 0.001) == 0.001
    assert suggestions.asked == {}


@pytest.mark.parametrize(("depth", "active"), [(1, False), (2, True), (3, True)])
def test_condition_may_list_values(depth: int, active: bool) -> None:
    space = {"depth": an_int(1, 3), "skip": a_bool(when={"depth": [2, 3]})}
    values, suggestions = values_of(space, depth=depth, skip=True)
    assert values.take("skip", a_bool(), False) is active
    assert ("skip" in suggestions.asked) is active


def test_all_conditions_must_hold() -> None:
    space = {
        "a": a_bool(),
        "b": a_bool(),
        "c": an_int(when={"a": True, "b": True}),
    }
    values, _ = values_of(space, a=True, b=False, c=5)
    assert values.take("c", None, 0) == 0


def test_condition_on_a_trainers_value_that_is_not_in_the_space() -> None:
    space = {"momentum": a_float(0, 0.99, when={"optimizer": "sgd"})}
    values, _ = values_of(space, momentum=0.5)
    assert values.training("momentum") == 0.9


def test_condition_on_what_the_builder_has_declared_before() -> None:
    values, _ = values_of({"rate": a_float(when={"norm": True})}, norm=True, rate=0.5)
    values.take("norm", a_bool(), False)
    assert values.take("rate", a_float(), 0.1) == 0.5


def test_condition_on_what_nobody_has_asked_for() -> None:
    values, _ = values_of({"rate": a_float(when={"norm": True})}, width=3)
    with pytest.raises(SpaceError, match=r"depends on 'norm'.*known by then: nothing") as caught:
        values.take("rate", a_float(), 0.1)
    assert caught.value.entry == "rate"
    values.take("width", an_int(), 3)
    with pytest.raises(SpaceError, match="known by then: width"):
        values.take("rate", a_float(), 0.1)


def test_conditions_may_form_a_chain() -> None:
    space = {
        "a": a_bool(),
        "b": a_bool(when={"a": True}),
        "c": an_int(when={"b": True}),
    }
    values, suggestions = values_of(space, a=True, b=True, c=5)
    assert values.take("c", None, 0) == 5
    assert list(suggestions.asked) == ["a", "b", "c"]
    values, suggestions = values_of(space, a=False)
    assert values.take("c", None, 0) == 0
    assert list(suggestions.asked) == ["a"]


def test_parent_is_held_against_a_declaration_that_comes_later() -> None:
    space = {"depth": an_int(1, 20), "skip": a_bool(when={"depth": 2})}
    values, _ = values_of(space, depth=15)
    assert values.take("skip", a_bool(), False) is False
    with pytest.raises(SpaceError, match="a whole number from 1 to 9 as the builder, received 20"):
        values.take("depth", an_int(), 1)


# Repetition.


def test_repeated_parameter_is_active_as_often_as_its_parent_says() -> None:
    space = {"depth": an_int(1, 9), "units": an_int(16, 64, repeat="depth")}
    values, suggestions = values_of(space, depth=2, units_0=16, units_1=32)
    declared = an_int(8, 512)
    assert [values.take(f"units_{i}", declared, 8) for i in range(4)] == [16, 32, 8, 8]
    assert list(suggestions.asked) == ["depth", "units_0", "units_1"]
    assert values.asked == {"depth", "units"}


def test_repeated_parameter_is_held_against_the_builders_range() -> None:
    space = {"depth": 2, "units": an_int(16, 1024, repeat="depth")}
    values, _ = values_of(space)
    with pytest.raises(SpaceError, match="received 1024") as caught:
        values.take("units_0", an_int(8, 512), 8)
    assert caught.value.entry == "units"


def test_one_of_the_repeated_may_be_fixed() -> None:
    space = {"depth": 2, "units": an_int(16, 64, repeat="depth"), "units_1": 48}
    values, _ = values_of(space, units_0=16)
    assert [values.take(f"units_{i}", an_int(8, 512), 8) for i in range(2)] == [16, 48]


def test_numbered_names_are_names_of_their_own_without_repeat() -> None:
    values, suggestions = values_of({"units": an_int(16, 64)}, units_0=500, units=32)
    assert values.take("units_0", an_int(8, 512), 8) == 500
    assert values.take("units", an_int(8, 512), 8) == 32
    assert suggestions.asked["units_0"] == an_int(8, 512)


def test_base_name_of_the_repeated_is_a_name_of_its_own() -> None:
    space = {"depth": 1, "units": an_int(16, 64, repeat="depth")}
    values, suggestions = values_of(space, units=500)
    assert values.take("units", an_int(8, 512), 8) == 500
    assert not values.adds("units")
    assert values.adds("units_0")
    assert suggestions.asked == {"units": an_int(8, 512)}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (a_bool(), "true or false"),
        (a_choice("a", 1), "one of 'a', 1"),
        (an_int(1, 12345678), "a whole number from 1 to 12345678"),
        (a_float(1e-5, 0.5), "a number from 1e-05 to 0.5"),
    ],
)
def test_ranges_in_words(declared: Parameter, words: str) -> None:
    assert in_words(declared) == words


@pytest.mark.parametrize("name", ["x" * 513, "", " x", "x ", "x\n", "nul\0", "\ud800"])
def test_names_that_not_every_database_can_hold(name: str) -> None:
    values = Values({}, {}, Suggestions({name: 0.5}))
    with pytest.raises(BuilderError, match=r"a parameter (named|with a name of 513 characters)"):
        values.take(name, a_float(), None)


def test_long_and_strange_names_are_taken() -> None:
    for name in ("x" * 512, "a b", "\u00fcnits[kind=mlp ]", "\U0001f40d"):
        assert Values({}, {}, Suggestions({name: 0.5})).take(name, a_float(), None) == 0.5
