from __future__ import annotations

import pytest

from hpo.spec.messages import any_of, dotted, nearest, not_among, received


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("50", 'the text "50"'),
        ('a "b"\n', r'the text "a \"b\"\n"'),
        (None, "nothing"),
        (True, "true"),
        (3, "3"),
        (1e-05, "1e-05"),
        ([], "an empty list"),
        ([1], "a list"),
        ({"a": 1}, "a mapping"),
    ],
)
def test_a_received_value_in_words(value: object, words: str) -> None:
    assert received(value) == words


def test_long_text_is_cut() -> None:
    assert received("x" * 1000) == f'the text "{"x" * 57}..."'


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("dropuot", "dropout"),
        ("DROPOUT", "dropout"),
        ("max", "maximize"),
        ("TPESampler", "tpe"),
        ("zebra", None),
        ("", None),
        (5, None),
    ],
)
def test_the_nearest_name(word: object, near: str | None) -> None:
    assert nearest(word, ["dropout", "maximize", "minimize", "tpe"]) == near


def test_phrases_are_joined_once() -> None:
    assert any_of(["a list"]) == "a list"
    assert any_of(["text", "a list", "text", "a number"]) == "text, a list or a number"


def test_choices_of_any_type_are_shown() -> None:
    assert not_among("yes", (True, False)) == 'expected true or false, received the text "yes"'
    assert not_among(3, (1, "two")) == "expected 1 or two, received 3"


def test_a_path_reads_like_the_file() -> None:
    assert dotted(("space", "optimizer", "choices", 1)) == "space.optimizer.choices[1]"
    assert dotted(("space", "a b", "low")) == 'space."a b".low'
    assert dotted(()) == ""
