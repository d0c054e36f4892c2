"""The hash of a builder that stands in no file: what changes it and what does not."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

import pytest

from hpo.api.sources import source_hash
from tests.conftest import ROOT

CELL = """
WIDTH = 16
def head(n):
    return n + 1
def build(hp):
    return [head(WIDTH) for _ in range(hp)] if hp in {"a", "b", "c"} else None
class Model:
    depth = 2
    def __init__(self, scale=1):
        self.scale = scale
    def build(self, hp):
        return self._inner(hp)
    @staticmethod
    def _inner(hp):
        return hp
"""


def run_cell(text: str) -> dict[str, Any]:
    """As a kernel does: a plain namespace, no file behind it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(text, namespace)
    return namespace


def test_the_same_source_has_the_same_hash() -> None:
    for name in ("build", "Model"):
        assert source_hash(run_cell(CELL)[name]) == source_hash(run_cell("\n\n" + CELL)[name])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WIDTH = 16", "WIDTH = 32"),
        ("return n + 1", "return n + 2"),
        ('"c"}', '"d"}'),
    ],
)
def test_what_a_function_uses_counts(old: str, new: str) -> None:
    assert old in CELL
    changed = run_cell(CELL.replace(old, new))
    assert source_hash(changed["build"]) != source_hash(run_cell(CELL)["build"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("depth = 2", "depth = 3"),
        ("return self._inner(hp)", "return self._inner(hp + 1)"),
        ("        return hp\n", "        return -hp\n"),
    ],
)
def test_what_a_class_is_made_of_counts(old: str, new: str) -> None:
    assert old in CELL
    changed = run_cell(CELL.replace(old, new))
    assert source_hash(changed["Model"]) != source_hash(run_cell(CELL)["Model"])


def test_what_is_not_used_does_not_count() -> None:
    other = run_cell(CELL + "\nOTHER = 1\n")
    assert source_hash(other["build"]) == source_hash(run_cell(CELL)["build"])


def test_an_instance_and_what_it_was_made_with() -> None:
    kind = run_cell(CELL)["Model"]
    assert source_hash(kind(1)) == source_hash(kind(1))
    assert source_hash(kind(1)) != source_hash(kind(2))


def test_closures_partials_and_lambdas() -> None:
    def factory(width: int) -> Any:
        return lambda hp: (hp, width)

    def build(hp: Any, width: int) -> Any:
        return hp, width

    assert source_hash(factory(1)) == source_hash(factory(1))
    assert source_hash(factory(1)) != source_hash(factory(2))
    one, other = (functools.partial(build, width=width) for width in (1, 2))
    assert source_hash(one) != source_hash(other)


def test_things_that_refer_to_each_other_end() -> None:
    namespace = run_cell(
        "RING = []\nRING.append(RING)\n"
        "def even(n): return RING or odd(n - 1)\ndef odd(n): return even(n - 1)\n"
    )
    assert source_hash(namespace["even"]) != source_hash(namespace["odd"])


def test_every_process_finds_the_same() -> None:
    """Text is hashed with a seed of the process, which changes the order of sets."""
    code = f"""
from hpo.api.sources import source_hash
namespace = {{"__name__": "__main__"}}
exec({CELL!r}, namespace)
print(source_hash(namespace["build"]), source_hash(namespace["Model"](3)))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
