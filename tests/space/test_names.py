"""The names of a study's parameters as the builder asks for them."""

from __future__ import annotations

from hpo.space.names import builder_values

KIND = {"kind": "a", "units[kind=a]": 8, "rate[kind=a|b,units=8]": 0.1, "x[0]": 1}


def test_conditions_are_taken_off() -> None:
    plain = {"kind": "a", "units": 8, "rate": 0.1, "x[0]": 1}
    assert builder_values(KIND, {}) == plain
    assert builder_values({"a[0][x=1]": 2}, {}) == {"a[0]": 2}


def test_what_the_study_file_fixes_is_there() -> None:
    assert builder_values({"depth": 2}, {"units": 8, "name": "net"}) == {
        "depth": 2,
        "units": 8,
        "name": "net",
    }


def test_what_it_fixes_under_a_condition_is_there_while_that_holds() -> None:
    space = {"units[kind=a]": 8, "units[kind=b]": 16, "rate[kind=b|c,units=16]": 0.1}
    assert builder_values({"kind": "a"}, space) == {"kind": "a", "units": 8}
    assert builder_values({"kind": "b"}, space) == {"kind": "b", "units": 16, "rate": 0.1}
    assert builder_values({"kind": "c", "units[kind=c]": 3}, space) == {"kind": "c", "units": 3}
    # Also on what is fixed itself, wherever that stands.
    space = {"units[kind=deep]": 64, "kind": "deep"}
    assert builder_values({}, space) == {"units": 64, "kind": "deep"}
