"""Commands that import Keras for themselves, as a person's do: data is opened meanwhile, once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import hpo_command
from tests.end_to_end.conftest import Project, study_content

pytestmark = [pytest.mark.keras, pytest.mark.slow]

SOURCE = """
import os
import numpy as np

def load(seed=None):
    with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as calls:
        calls.write("x")
    x = np.random.default_rng(seed).normal(size=(200, 4))
    return x, (x[:, 0] > 0).astype(int)
"""


def prepared(folder: Path, **arguments: Any) -> Path:
    source = {"type": "python", "load": "source:load", "args": arguments}
    Project(folder, "").write(study_content(data={"source": source}))
    (folder / "source.py").write_text(SOURCE)
    return folder


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "HPO_FORKSERVER"}
    return subprocess.run(
        hpo_command(*arguments),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_check_and_workers_take_what_was_opened_meanwhile(tmp_path: Path) -> None:
    folder = prepared(tmp_path, seed=0)
    done = command(folder, "run", "study.yaml", "--no-export", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "is finished: 8 trials" in done.stderr
    # Once for all of them, and once to see that it is the same again.
    assert (folder / "calls").read_text() == "xx"


def test_rows_that_differ_each_time_make_no_study(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    done = command(folder, "submit", "study.yaml")
    assert done.returncode == 2, done.stderr
    assert "source:load returns other data each time it is called" in done.stderr
    assert "np.random.default_rng(0)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "hpo.db").exists()
