"""The house has levels, and imports point down: read from the source, function bodies included."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

LEVELS = {
    "errors": 0,
    "usercode": 1,
    "artifacts": 1,
    "spec": 1,
    "space": 1,
    "data": 2,
    "study": 2,
    "training": 3,
    "worker": 4,
    "launch": 5,
    "watch": 5,
    "export": 5,
    "kerastuner": 5,
    "console": 6,
    "api": 7,
    "cli": 8,
    "__main__": 9,
}
# On one level, the second may know the first.
NEIGHBOURS = {("spec", "space")}
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


def test_every_module_stands_in_a_room() -> None:
    assert [name for name in modules() if name != "hpo" and room(name) is None] == []


def test_no_import_points_up_or_sideways() -> None:
    wrong = []
    for name, path in modules().items():
        here = room(name)
        for target in imports(path):
            there = room(target)
            if here is None or there is None or here == there or (there, here) in NEIGHBOURS:
                continue
            if LEVELS[there] >= LEVELS[here]:
                wrong.append(f"{name} -> {target}")
    assert wrong == []


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


def test_models_know_nothing_of_the_service() -> None:
    for path in (ROOT / "models").glob("*.py"):
        allowed = {"__future__", "keras", "keras_tuner", "math"}
        assert {target.partition(".")[0] for target in imports(path)} <= allowed


def test_only_the_command_and_its_console_print_or_exit() -> None:
    def calls(path: Path) -> set[str]:
        nodes = ast.walk(ast.parse(path.read_text()))
        return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}

    wrong = {"print", "sys.exit", "exit", "quit", "click.echo"}
    found = {name for name, path in modules().items() if calls(path) & wrong}
    assert {".".join(name.split(".")[:2]) for name in found} == {"hpo.cli", "hpo.console"}
