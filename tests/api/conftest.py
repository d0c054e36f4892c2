"""A project folder with a builder in a module, and scripts run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.conftest import BUILDER

# What a notebook's first cell would define.
CELL = f"""
import hpo
import numpy as np
{BUILDER}
random = np.random.default_rng(0)
y = np.repeat(np.arange(3), 40)
x = random.normal(size=(120, 5)) + 3 * y[:, None]
"""
Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: an empty project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start_script(folder: Path, text: str, forkserver: str) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(text)
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HPO_FORKSERVER": forkserver},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def script(folder: Path, forkserver: str) -> Script:
    """Runs a script in the project folder."""

    def run(text: str) -> subprocess.CompletedProcess[str]:
        process = start_script(folder, text, forkserver)
        output, errors = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run
