"""`import hpo` costs nothing, and shows what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hpo


def test_the_import_is_light() -> None:
    code = """
import sys
before = set(sys.modules)
import hpo
imported = {name.partition(".")[0] for name in set(sys.modules) - before}
print(imported - sys.stdlib_module_names)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'hpo'}\n"


def test_the_api_is_seen_and_has_help() -> None:
    assert {"tune", "open_study", "Study"} <= set(dir(hpo))
    text = hpo.tune.__doc__ or ""
    names = hpo.tune.__annotations__.keys() - {"return"}
    assert [name for name in names if f"\n        {name}: " not in text] == []


def test_the_api_itself_needs_no_keras() -> None:
    code = "import sys, hpo; hpo.tune; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'tuna'"):
        hpo.tuna  # noqa: B018


def test_opening_a_study_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hpo.errors.StudyNotFoundError, match=r"no database file .*hpo\.db"):
        hpo.open_study("nothing")
    assert list(tmp_path.iterdir()) == []
