"""Every file in tests/broken says in its first lines what is wrong with it, and where."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest

from hpo.errors import Problem, StudyFileError
from hpo.spec import load_study_file

FILES = sorted((Path(__file__).parent.parent / "broken").glob("*.yaml"))
EXPECT = "# expect: "


def expectations(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(EXPECT) for line in takewhile(lambda x: x.startswith(EXPECT), lines)]


def in_short(problem: Problem) -> str:
    path = f"{problem.path}: " if problem.path else ""
    return f"{problem.line}:{problem.column} {path}{problem.message}"


def test_there_are_broken_files() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_problem_is_told_once_with_its_place_in_our_words(file: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        load_study_file(file)
    assert [in_short(problem) for problem in caught.value.problems] == expectations(file)
    for word in ("Input should", "pydantic", "https://", "tag:yaml.org", "<stream", "Value error"):
        assert word not in str(caught.value)
