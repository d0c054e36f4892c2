"""The README's own model works as it is printed there."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.end_to_end.conftest import Project

pytestmark = pytest.mark.keras


def block(language: str, begins: str = "") -> str:
    text = (ROOT / "README.md").read_text()
    match = re.search(rf"^```{language}\n({begins}.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def test_the_builder_and_the_study_file_of_the_readme(project: Project) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 5)) + np.repeat(np.arange(3), 40)[:, None]
    np.savez(project.folder / "data.npz", x=x, y=np.repeat(np.arange(3), 40))
    (project.folder / "my_model.py").write_text(block("python"))
    (project.folder / "my-study.yaml").write_text(block("yaml", "version"))
    checked = project.hpo("validate", "my-study.yaml")
    assert checked.returncode == 0, checked.stderr
    assert "multiclass on 72 rows" in checked.stdout

    short = (
        block("yaml", "version")
        .replace("trials: 50", "trials: 3")
        .replace("epochs: 30", "epochs: 2")
    )
    (project.folder / "my-study.yaml").write_text(short)
    done = project.hpo("run", "my-study.yaml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((project.folder / "bundles" / "my-study" / "metrics.json").read_text())
    assert metrics["rows"] == {"train": 72, "validation": 24, "test": 24}


def test_the_table_of_the_readme(project: Project) -> None:
    random = np.random.default_rng(0)
    columns = {
        "age": random.normal(40, 10, 90).round(1).astype(str),
        "household": np.repeat(np.arange(30), 3),
        "churned": random.choice(["no", "yes"], 90),
    }
    columns["age"][5] = ""
    lines = [
        ",".join(columns),
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    (project.folder / "customers.csv").write_text("\n".join(lines))
    rest = block("yaml", "version").partition("model:")[2]
    study = "version: 1\nname: churn\n" + block("yaml", "data") + "model:" + rest
    (project.folder / "churn.yaml").write_text(study)
    shown = project.hpo("data", "churn.yaml")
    assert shown.returncode == 0, shown.stderr
    assert "binary: 54 rows train, 18 validate, 18 test" in shown.stdout
