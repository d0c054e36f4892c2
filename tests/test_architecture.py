"""The rooms of docs/architecture.md: imports point down, and to those that a room's row names.

Imports are read from the source, function bodies included.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# | level | `hpo/room/` | what it holds | knows |
ROW = re.compile(r"^\| (\d+) \| `hpo/(\w+)(?:/|\.py)` \| .+ \| (.+?) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "architecture.md").read_text())
LEVELS = {name: int(level) for level, name, _ in ROWS}
# Of a room that may know all below it the picture says no more.
KNOWS = {
    name: set() if known == "nothing" else set(known.split(", "))
    for _, name, known in ROWS
    if known != "all below"
}
# Keras, TensorFlow and KerasTuner live in the trainer process; these are the modules it runs.
KERAS_MODULES = {
    "hpo.data.encoding",
    "hpo.data.layers",
    "hpo.data.sources.kerasets",
    "hpo.data.sources.tfrecord",
    "hpo.data.tensors",
    "hpo.export.bundle",
    "hpo.export.predict",
    "hpo.kerastuner",
    "hpo.space.hyperparameters",
    "hpo.training.augment",
    "hpo.training.bench",
    "hpo.training.builder",
    "hpo.training.compiling",
    "hpo.training.dry_fit",
    "hpo.training.epochs",
    "hpo.training.evaluation",
    "hpo.training.freeing",
    "hpo.training.fused",
    "hpo.training.gpus",
    "hpo.training.graphs",
    "hpo.training.grappler",
    "hpo.training.own_fit",
    "hpo.training.plain",
    "hpo.training.preflight",
    "hpo.training.replay",
    "hpo.training.reuse",
    "hpo.training.run",
    "hpo.training.seeding",
    "hpo.training.state",
    "hpo.training.targets",
    "hpo.training.trial",
}
HEAVY = {"keras", "tensorflow", "keras_tuner"}


def modules() -> dict[str, Path]:
    found = {}
    # What `hpo init` writes is a user's.
    sources = (path for path in (ROOT / "hpo").rglob("*.py") if "templates" not in path.parts)
    for path in sorted(sources):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "hpo" and len(parts) > 1 and parts[1] in LEVELS else None


def acquaintances(here: str) -> set[str]:
    """The rooms that modules of a room import from."""
    found = {
        room(target)
        for name, path in modules().items()
        if room(name) == here
        for target in imports(path)
    }
    return {there for there in found if there not in (None, here)}


def test_every_module_stands_in_a_room_and_every_room_has_one() -> None:
    assert [name for name in modules() if name != "hpo" and room(name) is None] == []
    assert {room(name) for name in modules()} - {None} == set(LEVELS)


@pytest.mark.parametrize("here", LEVELS)
def test_no_import_points_up_or_sideways(here: str) -> None:
    assert [there for there in acquaintances(here) if LEVELS[there] >= LEVELS[here]] == []


@pytest.mark.parametrize("here", KNOWS)
def test_a_room_knows_those_whom_the_picture_names(here: str) -> None:
    assert acquaintances(here) == KNOWS[here]


def test_keras_is_imported_by_what_the_trainer_runs_alone() -> None:
    using = {
        name
        for name, path in modules().items()
        if any(target.partition(".")[0] in HEAVY for target in imports(path))
    }
    # The trainer's main module imports Keras inside its functions, after it was forked.
    assert using - {"hpo.worker.child"} <= KERAS_MODULES


IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = [each for each in ("keras", "tensorflow", "keras_tuner") if each in sys.modules]
    if heavy:
        sys.exit(f"{name} imports {heavy}")
"""


def test_every_other_module_can_be_imported_without_keras() -> None:
    names = sorted(set(modules()) - KERAS_MODULES - {"hpo.__main__"})
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_user_would_write_knows_nothing_of_the_service() -> None:
    for path in [*(ROOT / "models").glob("*.py"), *(ROOT / "hpo" / "templates").rglob("*.py")]:
        allowed = {"__future__", "keras", "keras_tuner", "math"}
        assert {target.partition(".")[0] for target in imports(path)} <= allowed


def test_only_the_command_and_its_console_print_or_exit() -> None:
    assert rooms_that_call("print", "click.echo") == {"cli", "console"}
    assert rooms_that_call("sys.exit", "exit", "quit") == {"cli"}
    assert rooms_that_call("os._exit") == {"worker"}


def rooms_that_call(*functions: str) -> set[str | None]:
    def calls(path: Path) -> set[str]:
        nodes = ast.walk(ast.parse(path.read_text()))
        return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}

    return {room(name) for name, path in modules().items() if calls(path) & set(functions)}
