"""Studies that can't work are refused before anything exists. The checks run in a real trainer."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import Hpo

pytestmark = pytest.mark.keras

BUILDERS = """
import os
import sys
import keras

def good(hp, input_shape, num_outputs):
    units = hp.Int("units", 4, 8)
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Dense(units, "relu"),
        keras.layers.Dense(num_outputs, "softmax"),
    ])

def returns_nothing(hp):
    hp.Int("units", 4, 8)

def raises(hp):
    raise RuntimeError("no such layer")

def leaves(hp):
    sys.exit("bye")

def interrupts(hp):
    raise KeyboardInterrupt

def logits(hp, input_shape, num_outputs):
    units = hp.Int("units", 4, 8)
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Dense(units, "relu"),
        keras.layers.Dense(num_outputs),
    ])

def dies(hp):
    os._exit(7)

def wrong_head(hp, input_shape):
    units = hp.Int("units", 4, 8)
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Dense(units), keras.layers.Dense(3, "softmax"),
    ])
"""


@pytest.fixture
def hpo(inprocess_hpo: Hpo) -> Hpo:
    """The checks run in a trainer; what the command itself imports it need not import each time."""
    return inprocess_hpo


def study(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "version": 1,
        "name": "small",
        "data": {"source": {"type": "sklearn", "name": "digits"}},
        "model": {"builder": "builders:good"},
        "objective": {"metric": "val_accuracy", "direction": "maximize"},
        "training": {"epochs": 2},
        "search": {"trials": 2},
    }
    return content | changes


def write(folder: Path, content: dict[str, Any]) -> None:
    (folder / "builders.py").write_text(BUILDERS)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


NPZ = {"source": {"type": "npz", "path": "data.npz"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"unitz": 4}}, ["study.yaml:", "space.unitz", "did you mean 'units'"]),
        (
            {"space": {"units": {"type": "int", "low": 2, "high": 6}}},
            ["space.units", "from 4 to 8"],
        ),
        ({"space": {"units": 9}}, ["space.units", "from 4 to 8", "9"]),
        ({"model": {"builder": "builders:god"}}, ["'god'", "did you mean 'good'"]),
        ({"model": {"builder": "nowhere:good"}}, ["nowhere.py", "--project"]),
        ({"model": {"builder": "builders:returns_nothing"}}, ["keras.Model", "NoneType"]),
        ({"model": {"builder": "builders:raises"}}, ["no such layer", "builders.py", "line 17"]),
        (
            {"model": {"builder": "builders:leaves"}},
            ["builders:leaves raised SystemExit: bye", "builders.py, line 20"],
        ),
        (
            {"model": {"builder": "builders:interrupts"}},
            ["builders:interrupts raised KeyboardInterrupt:", "builders.py, line 23"],
        ),
        ({"model": {"builder": "builders:logits"}}, ["probabilities", "softmax"]),
        ({"model": {"builder": "builders:wrong_head"}}, ["(None, 3)", "(None, 10)"]),
        ({"model": {"builder": "builders:good", "args": {"widht": 3}}}, ["model.args", "widht"]),
        (
            {"objective": {"metric": "val_acuracy", "direction": "maximize"}},
            ["objective.metric", "never reported", "did you mean 'val_accuracy'"],
        ),
        ({"data": NPZ}, ["data.npz"]),
        (
            {
                "search": {
                    "trials": 2,
                    "sampler": {"type": "grid", "search_space": {"unit": [4, 5]}},
                }
            },
            ["search.sampler.search_space", "lacks 'units'", "'unit', which is never sampled"],
        ),
        (
            {
                "space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.1}},
                "search": {"trials": 2, "sampler": "brute_force"},
            },
            ["search.sampler", "every value of 'learning_rate'"],
        ),
        ({"training": {"epochs": 2, "loss": "squared"}}, ["loss", "squared"]),
        ({"training": {"epochs": 2, "class_weight": {"eleven": 2.0}}}, ["eleven"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refused_with_one_clear_message(
    hpo: Hpo, tmp_path: Path, forkserver: str, changes: dict[str, Any], words: list[str]
) -> None:
    write(tmp_path, study(**changes))
    before = sorted(path.name for path in tmp_path.iterdir())
    done = hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert "Traceback" not in done.stderr
    after = sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__")
    assert after == before


def test_a_builder_that_ends_the_process_is_named(
    hpo: Hpo, tmp_path: Path, forkserver: str
) -> None:
    write(tmp_path, study(model={"builder": "builders:dies"}))
    done = hpo("validate", "study.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 1
    words = "exited with code 7 while it built and tried the model of builders:dies"
    assert words in done.stderr


def test_a_module_that_reads_its_arguments_finds_none(
    hpo: Hpo, tmp_path: Path, forkserver: str
) -> None:
    write(tmp_path, study())
    with (tmp_path / "builders.py").open("a") as file:
        file.write("import argparse; argparse.ArgumentParser().parse_args()\n")
    done = hpo("validate", "study.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr


def test_data_with_nan_is_refused(hpo: Hpo, tmp_path: Path, forkserver: str) -> None:
    x = np.ones((50, 4), np.float32)
    x[7, 2] = np.nan
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(50) % 2)
    write(tmp_path, study(data=NPZ))
    done = hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 2
    assert "NaN" in done.stderr
    assert "7" in done.stderr
    assert not (tmp_path / "hpo.db").exists()


def test_a_study_of_that_name_with_another_spec(hpo: Hpo, tmp_path: Path, forkserver: str) -> None:
    write(tmp_path, study())
    assert hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver).returncode == 0
    write(tmp_path, study(training={"epochs": 3}))
    done = hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 2
    assert "training.epochs: the study has 2, here it is 3" in done.stderr
    status = hpo("status", "--json")
    assert '"trials": 2' in status.stdout


def test_a_worker_with_another_builder_refuses_to_join(
    hpo: Hpo, tmp_path: Path, forkserver: str
) -> None:
    write(tmp_path, study())
    assert hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver).returncode == 0
    (tmp_path / "builders.py").write_text(BUILDERS + "\n# changed\n")
    done = hpo("worker", "small", HPO_FORKSERVER=forkserver)
    assert done.returncode == 2
    assert "builder source" in done.stderr
    assert '"finished": 0' in hpo("status", "--json").stdout
    # It leaves no trace of itself.
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_validate_says_what_it_found(hpo: Hpo, tmp_path: Path, forkserver: str) -> None:
    write(tmp_path, study())
    done = hpo("validate", "study.yaml", HPO_FORKSERVER=forkserver)
    assert done.returncode == 0, done.stderr
    assert "multiclass on 1079 rows" in done.stdout
    assert "units" in done.stdout
    assert "val_accuracy" in done.stdout
    assert not (tmp_path / "hpo.db").exists()


def test_a_folder_that_is_no_bundle_is_refused_before_the_search(
    hpo: Hpo, tmp_path: Path, forkserver: str
) -> None:
    write(tmp_path, study())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    done = hpo("run", "study.yaml", "--out", "mine", HPO_FORKSERVER=forkserver)
    assert done.returncode == 2
    assert "mine exists and is no bundle; choose another --out" in done.stderr
    assert not (tmp_path / "hpo.db").exists()


def test_a_trial_that_never_had_a_value_leaves_nothing_to_export(
    hpo: Hpo, tmp_path: Path, forkserver: str
) -> None:
    write(tmp_path, study())
    assert hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver).returncode == 0
    for command in ("best", "export"):
        done = hpo(command, "small", HPO_FORKSERVER=forkserver)
        assert done.returncode == 4
        assert "no finished trial" in done.stderr
        assert "exporting" not in done.stderr


def test_a_worker_says_why_there_is_no_work(hpo: Hpo, tmp_path: Path, forkserver: str) -> None:
    write(tmp_path, study())
    assert hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver).returncode == 0
    assert hpo("stop").returncode == 0
    done = hpo("worker", "small", HPO_FORKSERVER=forkserver)
    assert done.returncode == 1
    for words in ("stopped with hpo stop; 0 of 2 trials", "hpo resume small"):
        assert words in done.stderr
    # As the claim does that finds the time limit passed.
    with sqlite3.connect(tmp_path / "hpo.db") as database:
        database.execute("UPDATE hpo_studies SET state = 'timed out'")
    done = hpo("worker", "small", HPO_FORKSERVER=forkserver)
    assert done.returncode == 0
    for words in ("time limit of the study 'small' has passed", "hpo resume small"):
        assert words in done.stderr


def test_an_unknown_study_lists_those_that_exist(hpo: Hpo, tmp_path: Path, forkserver: str) -> None:
    write(tmp_path, study())
    assert hpo("submit", "study.yaml", HPO_FORKSERVER=forkserver).returncode == 0
    done = hpo("status", "smal")
    assert done.returncode == 3
    assert "studies there: small" in done.stderr


def test_predict_refuses_what_is_no_bundle(hpo: Hpo, tmp_path: Path, forkserver: str) -> None:
    done = hpo("predict", "nowhere", "rows.npz", HPO_FORKSERVER=forkserver)
    assert done.returncode == 2
    assert "no exported bundle" in done.stderr
