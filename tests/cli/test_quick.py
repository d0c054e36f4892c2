"""Commands that answer at once: no Keras, clear errors, nothing created."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hpo.study.database import Database
from hpo.study.schema import create_schema
from tests.conftest import ROOT, Hpo

COMMANDS = [
    *("best", "dashboard", "doctor", "export", "predict", "resume", "run"),
    *("schema", "status", "stop", "submit", "validate", "worker"),
]


@pytest.fixture
def hpo(shell_hpo: Hpo) -> Hpo:
    return shell_hpo


def test_help_names_every_command(hpo: Hpo) -> None:
    done = hpo("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_itself_and_its_options(hpo: Hpo, command: str) -> None:
    done = hpo(command, "--help")
    assert done.returncode == 0
    assert "Options:" in done.stdout


def test_a_wrong_option_is_bad_usage(hpo: Hpo) -> None:
    done = hpo("status", "--wrong")
    assert done.returncode == 2
    assert "--wrong" in done.stderr


@pytest.mark.parametrize("code", ["import hpo.cli", "import hpo", "import hpo.worker.loop"])
def test_the_commands_and_the_worker_import_no_keras(code: str) -> None:
    code += "; import sys; print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["status", "best", "export", "stop", "resume", "dashboard"])
def test_a_missing_database_is_not_found_and_not_created(
    hpo: Hpo, tmp_path: Path, command: str
) -> None:
    done = hpo(command, "--storage", "sqlite:///no.db")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "no.db" in done.stderr
    assert "--storage" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "best", "stop"])
def test_a_database_without_a_study_is_named(
    inprocess_hpo: Hpo, tmp_path: Path, command: str
) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)) as database:
        create_schema(database)
    done = inprocess_hpo(command)
    assert done.returncode == 3
    assert f"there is no study in sqlite:///{tmp_path / 'hpo.db'} yet" in done.stderr
    assert "hpo submit STUDY_FILE" in done.stderr


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("postgresql://u@127.0.0.1:9/d?foo=bar", "foo=bar"),
        ("mysql://u@127.0.0.1:9/d?foo=bar", "foo=bar"),
        ("mysql://u@127.0.0.1:9/d?ssl_ca=/no/ca.pem", "ssl_ca=/no/ca.pem"),
        ("sqlite:///hpo.db?foo=bar", "foo=bar"),
    ],
)
def test_a_wrong_option_of_a_driver_is_one_clear_message(
    inprocess_hpo: Hpo, storage: str, words: str
) -> None:
    file = ROOT / "studies" / "digits-mlp.yaml"
    for command in (("status",), ("submit", file, "--project", ROOT)):
        done = inprocess_hpo(*command, HPO_STORAGE=storage)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    done = inprocess_hpo("doctor", HPO_STORAGE=storage)
    assert done.returncode == 1
    assert words in done.stdout


def test_a_dashboard_that_writes_shows_the_whole_study(hpo: Hpo, tmp_path: Path) -> None:
    done = hpo("dashboard", "--allow-write", "--trials", "100")
    assert done.returncode == 2
    assert "--trials does not go with --allow-write" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "code", "words"),
    [
        ("hpo.db", 2, "not a database URL"),
        ("oracle://host/db", 2, "'oracle'"),
        ("sqlite://", 2, "needs a file"),
        ("sqlite:///missing/folder/hpo.db", 2, "missing/folder"),
        # It waits for the database before it says so.
        pytest.param(
            *("postgresql://user:s3cret@127.0.0.1:9/db", 5, "out of reach"), marks=pytest.mark.long
        ),
    ],
)
def test_a_mistyped_storage_is_one_clear_message(
    hpo: Hpo, tmp_path: Path, storage: str, code: int, words: str
) -> None:
    file = ROOT / "studies" / "digits-mlp.yaml"
    done = hpo("submit", file, "--project", ROOT, HPO_STORAGE=storage)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_broken_study_file_tells_every_problem_with_its_place(hpo: Hpo, tmp_path: Path) -> None:
    text = (ROOT / "studies" / "digits-mlp.yaml").read_text()
    text = text.replace("trials: 40", "trails: 40").replace(
        "low: 16, high: 256", "low: 16, high: 8"
    )
    (tmp_path / "study.yaml").write_text(text)
    done = hpo("run", "study.yaml", "--project", ROOT)
    assert done.returncode == 2
    assert "2 problems" in done.stderr
    assert "did you mean 'trials'" in done.stderr.replace('"', "'")
    assert "study.yaml:14:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_an_option_of_a_sampler_that_does_not_exist_points_at_its_place(
    hpo: Hpo, tmp_path: Path
) -> None:
    text = (ROOT / "studies" / "digits-mlp.yaml").read_text()
    text = text.replace("sampler: tpe", "sampler: {type: tpe, n_startup_trails: 5}")
    (tmp_path / "study.yaml").write_text(text)
    done = hpo("validate", "study.yaml", "--project", ROOT)
    assert done.returncode == 2
    assert "n_startup_trials" in done.stderr
    assert "study.yaml:19:" in done.stderr


def test_the_committed_schema_is_what_the_command_prints(hpo: Hpo) -> None:
    done = hpo("schema")
    assert done.returncode == 0
    assert done.stdout == (ROOT / "studies" / "study.schema.json").read_text()
    assert json.loads(done.stdout)["type"] == "object"
