"""`hpo run` from an empty folder to a bundle, and what can be seen of the study afterwards."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
from sklearn.datasets import load_digits

from hpo.worker.trainers import Trainers
from tests.end_to_end.conftest import Project, study_content

pytestmark = pytest.mark.keras


def load(project: Project) -> optuna.Study:
    return optuna.load_study(study_name="small", storage=project.storage)


def test_run_ends_with_a_table_and_a_bundle(finished: Project) -> None:
    shown = (finished.folder / "run.out").read_text()
    for words in ("best configuration", "validation accuracy", "test accuracy", "bundles/small"):
        assert words in shown
    assert {path.name for path in (finished.folder / "bundles" / "small").iterdir()} == {
        "model.keras",
        "config.yaml",
        "metrics.json",
    }


def test_exactly_so_many_trials_and_none_left_running(finished: Project) -> None:
    trials = load(finished).get_trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.state.is_finished() for trial in trials)
    status = json.loads(finished.hpo("status", "--json").stdout)
    assert (status["state"], status["finished"], status["running"]) == ("finished", 8, 0)
    assert status["workers"] == 0


def test_it_is_an_ordinary_optuna_study(finished: Project) -> None:
    study = load(finished)
    best = json.loads(finished.hpo("best", "--json").stdout)
    usable = [trial for trial in study.get_trials() if trial.value is not None]
    assert best["value"] == max(trial.value for trial in usable) == study.best_value
    for trial in usable:
        assert trial.value == max(trial.intermediate_values.values())
        assert {"learning_rate", "depth", "units_0", "dropout"} <= set(trial.params)
        assert ("units_1" in trial.params) == (trial.params["depth"] == 2)
        steps = sorted(trial.intermediate_values)
        assert steps == list(range(1, len(steps) + 1))


def test_trials_carry_what_they_cost_and_their_curves(finished: Project) -> None:
    for trial in load(finished).get_trials():
        attrs = trial.user_attrs
        assert attrs["epochs"] == len(trial.intermediate_values)
        assert attrs["seconds"] > 0
        assert attrs["model_parameters"] > 0
        assert attrs["device"].partition(":")[0] in ("CPU", "GPU")
        assert attrs["host"]
        metas = [json.loads(v) for k, v in trial.system_attrs.items() if k.startswith("artifacts:")]
        assert {meta["filename"] for meta in metas} == {"learning-curve.png", "history.csv"}
        for meta in metas:
            content = (finished.folder / "artifacts" / "files" / meta["artifact_id"]).read_bytes()
            if meta["filename"] == "history.csv":
                lines = content.decode().splitlines()
                assert lines[0].startswith("epoch,")
                assert len(lines) == attrs["epochs"] + 1
            else:
                assert content.startswith(b"\x89PNG")


def test_its_trainers_share_data_and_graphs(finished: Project) -> None:
    shared = Trainers(finished.forkserver).shared
    assert shared is not None
    # The server is the session's: a trainer that was killed may have left a file half written.
    whole = {path.name for path in shared.glob("graphs/*/*") if not path.suffix}
    assert whole == {"train", "evaluate"}
    assert any(shared.glob("data/*/contents.json"))


def test_only_the_best_trials_keep_a_checkpoint(finished: Project) -> None:
    folders = (finished.folder / "artifacts" / "small").glob("trial-*")
    kept = {path.name.rpartition("-")[0] for path in folders}
    best = json.loads(finished.hpo("best", "--json").stdout)
    assert f"trial-{best['number']:05d}" in kept
    assert len(kept) == 3


def test_a_second_run_says_that_the_study_is_finished(finished: Project, tmp_path: Path) -> None:
    again = Project(tmp_path / "copy", finished.forkserver)
    shutil.copytree(finished.folder, again.folder)
    done = again.hpo("run", "study.yaml")
    assert done.returncode == 0
    assert "is finished: 8 trials" in done.stderr
    assert len(load(again).get_trials()) == 8


def test_submitted_again_it_says_so_too(finished: Project) -> None:
    done = finished.hpo("submit", "study.yaml")
    assert done.returncode == 0
    assert done.stdout == "small\n"
    assert "all of 8 trials are finished; see: hpo best small" in done.stderr
    # Nor is it stopped any more: it may still be extended.
    done = finished.hpo("stop")
    assert done.stderr == "'small' is finished: there is nothing to stop\n"
    with closing(sqlite3.connect(finished.folder / "hpo.db")) as database:
        assert database.execute("SELECT state FROM hpo_studies").fetchall() == [("running",)]


def test_more_trials_extend_the_study(finished: Project, tmp_path: Path) -> None:
    more = Project(tmp_path / "copy", finished.forkserver)
    shutil.copytree(finished.folder, more.folder)
    content = study_content()
    content["search"]["trials"] = 10
    more.write(content)
    done = more.hpo("run", "study.yaml", "--no-export", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert len(load(more).get_trials()) == 10
    assert [t.params for t in load(more).get_trials()[:8]] == [
        t.params for t in load(finished).get_trials()
    ]


def test_a_time_limit_that_passes_is_an_end(finished: Project, tmp_path: Path) -> None:
    more = Project(tmp_path / "copy", finished.forkserver)
    shutil.copytree(finished.folder, more.folder)
    shutil.rmtree(more.folder / "bundles")
    content = study_content()
    content["search"] |= {"trials": 10, "timeout": "1h"}
    more.write(content)
    assert more.hpo("submit", "study.yaml").returncode == 0
    with sqlite3.connect(more.folder / "hpo.db") as database:
        database.execute("UPDATE hpo_studies SET deadline = 1")
    for _ in range(2):
        done = more.hpo("run", "study.yaml", "--workers", 1)
        assert done.returncode == 0, done.stderr
        for words in ("time limit of the study 'small' has passed: 8 of 10", "hpo resume small"):
            assert words in done.stderr
        assert "bundles/small" in done.stdout
        shutil.rmtree(more.folder / "bundles")
    assert len(load(more).get_trials()) == 8


RELOAD = """
import json, sys
import keras, numpy as np
model = keras.models.load_model("model.keras", safe_mode=True)
rows = np.load("rows.npz")
predicted = model.predict(rows["x"], verbose=0).argmax(axis=1)
loaded = [name for name in sys.modules if name.split(".")[0] in ("hpo", "models", "builder")]
print(json.dumps({"accuracy": float((predicted == rows["y"]).mean()), "loaded": loaded}))
"""


def test_the_bundle_gives_its_test_metric_with_keras_alone(
    finished: Project, tmp_path: Path
) -> None:
    """The test rows are cut out again here by the documented rule, not by this package."""
    from hpo.data import open_raw_part
    from hpo.spec import load_study_file

    spec = load_study_file(finished.folder / "study.yaml").spec
    part = open_raw_part(spec.data, finished.folder, "test")
    digits = load_digits()
    x = digits.data[part.rows]
    np.savez(tmp_path / "rows.npz", x=x, y=digits.target[part.rows])
    shutil.copy(finished.folder / "bundles" / "small" / "model.keras", tmp_path)
    (tmp_path / "reload.py").write_text(RELOAD)
    # -I: neither this folder nor PYTHONPATH is searched for modules.
    done = subprocess.run(
        [sys.executable, "-I", "reload.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    metrics = json.loads((finished.folder / "bundles" / "small" / "metrics.json").read_text())
    assert found["loaded"] == []
    assert found["accuracy"] == pytest.approx(metrics["test"]["accuracy"], abs=1e-5)


def test_predict_names_a_class_for_each_raw_row(finished: Project, tmp_path: Path) -> None:
    digits = load_digits()
    np.savez(tmp_path / "rows.npz", x=digits.data[:20])
    done = finished.hpo("predict", "bundles/small", tmp_path / "rows.npz", "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    right = sum(
        int(row["prediction"]) == y for row, y in zip(rows, digits.target[:20], strict=True)
    )
    assert right >= 15
    assert sum(rows[0]["classes"].values()) == pytest.approx(1, abs=1e-4)


def test_the_config_of_a_bundle_runs_again(finished: Project, tmp_path: Path) -> None:
    again = Project(tmp_path, finished.forkserver)
    again.write(study_content())
    shutil.copy(finished.folder / "bundles" / "small" / "config.yaml", tmp_path / "study.yaml")
    done = again.hpo("run", "study.yaml", "--no-export", "--workers", 1)
    assert done.returncode == 0, done.stderr
    status = json.loads(again.hpo("status", "--json").stdout)
    best = json.loads(finished.hpo("best", "--json").stdout)
    assert status["finished"] == 1
    assert status["best"] == pytest.approx(best["value"], abs=0.1)


def test_one_worker_gives_the_same_parameters_and_values_twice(
    tmp_path: Path, forkserver: str
) -> None:
    outcomes = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        made = Project(folder, forkserver)
        content = study_content()
        content["search"]["trials"] = 3
        made.write(content)
        assert made.hpo("run", "study.yaml", "--workers", 1, "--no-export").returncode == 0
        trials = load(made).get_trials()
        outcomes.append([(t.params, t.intermediate_values, t.state) for t in trials])
    assert outcomes[0] == outcomes[1]
