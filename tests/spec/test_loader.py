from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.errors import Problem, StudyFileError
from hpo.spec import StudyFile, load_study_file
from hpo.spec.models import FloatParameter, IntParameter

EXAMPLE = """\
version: 1
name: digits-mlp
data:
  source: {type: sklearn, name: digits}
  split: {validation: 0.2, test: 0.2, stratify: true, seed: 7}
model: {builder: "models.mlp:MLP", args: {day: 2020-01-01, mode: no, 1: one, width: 0x10}}
objective: {metric: val_accuracy, direction: maximize}
training:
  epochs: 30
  early_stopping:
    patience: 5
  class_weight: {0: 1, 1: 5}
space:
  dropout:
    type: float
    low: 0
    high: 1e-1
  depth:   {type: int, low: 1, high: 6}
  units:   {type: int, low: 16, high: 512, log: true, repeat: depth}
  momentum: &range {type: float, low: 0.0, high: 0.99, when: {optimizer: [sgd, rmsprop]}}
  decay: *range
  optimizer: {type: categorical, choices: [adam, sgd, rmsprop]}
  batch_size: 64
search: {trials: 50, sampler: tpe, pruner: {type: hyperband, min_resource: 2}, timeout: 1h30m}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(EXAMPLE)
    return path


@pytest.fixture
def study(file: Path) -> StudyFile:
    return load_study_file(file)


def refused(file: Path, content: str | bytes) -> list[Problem]:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StudyFileError) as caught:
        load_study_file(file)
    return list(caught.value.problems)


def test_values_arrive_typed(study: StudyFile, file: Path) -> None:
    spec = study.spec
    assert study.path == file
    assert spec.space["dropout"] == FloatParameter(type="float", low=0.0, high=0.1)
    assert spec.space["depth"] == IntParameter(type="int", low=1, high=6)
    assert spec.space["decay"] == spec.space["momentum"]
    assert spec.space["batch_size"] == 64
    assert spec.search.timeout == 5400
    assert spec.search.sampler.type == "tpe"
    assert spec.search.pruner.options == {"min_resource": 2}


def test_scalars_follow_yaml_1_2(study: StudyFile) -> None:
    assert study.spec.model.args == {"day": "2020-01-01", "mode": "no", "1": "one", "width": 16}
    assert study.spec.training.class_weight == {"0": 1.0, "1": 5.0}


def test_values_are_plain(study: StudyFile) -> None:
    assert {type(value) for value in study.spec.model.args.values()} == {str, int}
    assert "ruamel" not in repr(pickle.dumps(study.spec))


@pytest.mark.parametrize(
    ("path", "at_key", "line", "column"),
    [
        (("name",), False, 2, 7),
        (("name",), True, 2, 1),
        (("space", "depth"), False, 18, 12),
        (("space", "depth", "high"), False, 18, 38),
        (("space", "depth", "high"), True, 18, 32),
        (("space", "dropout"), False, 14, 3),
        (("space", "dropout", "high"), False, 17, 11),
        (("space", "optimizer", "choices", 1), False, 22, 50),
        (("space", "depth", "step"), False, 18, 12),
        (("space", "missing", "low"), True, 13, 1),
        (("space", "decay"), False, 21, 3),
        (("search", "pruner", "min_resource"), False, 24, 76),
        ((), False, 1, 1),
    ],
)
def test_a_problem_finds_its_place(
    study: StudyFile, path: tuple[str | int, ...], at_key: bool, line: int, column: int
) -> None:
    problem = study.problem(path, "is wrong", at_key=at_key)
    assert (problem.line, problem.column) == (line, column)
    assert problem.message == "is wrong"


def test_later_problems_make_one_error(study: StudyFile, file: Path) -> None:
    late = study.problem(("search", "pruner", "min_resource"), "expected 1")
    early = study.problem(("space", "optimizer", "choices", 1), "nobody asks for it")
    message = str(study.error(late, early))
    assert message.splitlines() == [
        f"{file}: 2 problems found; nothing was created",
        f"  {file}:22:50: space.optimizer.choices[1]: nobody asks for it",
        f"  {file}:24:76: search.pruner.min_resource: expected 1",
    ]


def test_a_byte_order_mark_and_windows_lines_are_fine(file: Path, study: StudyFile) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.replace("\n", "\r\n").encode())
    again = load_study_file(file)
    assert again.spec == study.spec
    assert again.problem(("space", "depth"), "") == study.problem(("space", "depth"), "")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="there is no such file"):
        load_study_file(tmp_path / "none.yaml")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="it is a folder"):
        load_study_file(tmp_path)


def test_a_path_through_a_file(file: Path) -> None:
    with pytest.raises(StudyFileError, match="can't be read: Not a directory"):
        load_study_file(file / "study.yaml")


def test_text_that_is_not_utf_8(file: Path) -> None:
    (problem,) = refused(file, b"version: 1\nname: caf\xe9\n")
    assert (problem.line, problem.column) == (2, 10)
    assert "received the byte 0xe9" in problem.message


def test_deep_nesting_is_refused_early(file: Path) -> None:
    (problem,) = refused(file, "[" * 500)
    assert problem.message == "nested deeper than 100 levels"


def test_aliases_can_not_explode(file: Path) -> None:
    rows = ["a0: &a0 [1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (problem,) = refused(file, "\n".join(rows))
    assert "too many to read" in problem.message


def test_huge_numbers_are_refused(file: Path) -> None:
    problems = refused(file, EXAMPLE.replace("epochs: 30", f"epochs: {'9' * 5000}"))
    assert [p.message for p in problems] == ["a number of 5000 digits is too long"]


def test_importing_the_room_imports_no_yaml() -> None:
    code = "import sys, hpo.spec; print(*[m for m in sys.modules if m.startswith('ruamel.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
