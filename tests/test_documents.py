"""Documents keep their promises: commands, options, links and exit codes are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from hpo import errors
from hpo.cli import cli
from tests.conftest import ROOT

FOLDERS = [ROOT, ROOT / "docs", ROOT / "benchmarks"]
DOCUMENTS = sorted(document for folder in FOLDERS for document in folder.glob("*.md"))


def section(text: str, command: str) -> str:
    match = re.search(rf"^## hpo {command}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return match[0] if match else ""


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_and_option_is_documented(command: str) -> None:
    found = section((ROOT / "docs" / "commands.md").read_text(), command)
    assert found, f"docs/commands.md has no section for hpo {command}"
    options = [
        option
        for parameter in cli.commands[command].params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
    ]
    assert [option for option in options if option not in found] == []


def test_no_option_is_documented_that_does_not_exist() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    known = {"--help"} | {
        option
        for command in cli.commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= known


def test_every_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.exit_code for each in classes if issubclass(each, errors.HpoError)}
    assert [code for code in codes if f"| {code} |" not in text] == []


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_resolve(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        name, _, anchor = target.partition("#")
        there = document.parent / name if name else document
        if "://" in target or (there.exists() and (not anchor or anchor in anchors(there))):
            continue
        broken.append(target)
    assert broken == []


def test_the_readme_s_commands_are_real() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.index("make run") < text.index("make test") < 1500
    for line in re.findall(r"^(?:    )?(?:\.venv/bin/)?hpo ([a-z]+)", text, re.MULTILINE):
        assert line in cli.commands


def test_the_makefile_has_what_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named <= targets


def test_a_fault_s_row_names_the_files_of_its_tests() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    rows = {
        int(number): row for number, row in re.findall(r"^\| (\d+) (\|.+)$", text, re.MULTILINE)
    }
    lacking = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for number in set(re.findall(r"def test_row_(\d+)_", path.read_text())):
            folder = str(path.parent.relative_to(ROOT))
            name = path.name if folder == "tests/faults" else f"{folder}/{path.name}"
            if f"`{name}`" not in rows[int(number)]:
                lacking.append(f"row {number}: {name}")
    assert lacking == []
