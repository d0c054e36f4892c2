"""The doctor says what is there and what to do, with real files, ports and servers."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.launch import doctor
from hpo.launch.doctor import Check
from hpo.study.database import Database
from hpo.study.studies import create_schema
from tests.conftest import Hpo
from tests.servers import Server


def storage(url: str) -> dict[str, Check]:
    return {check.name: check for check in doctor.check_storage(url)}


def sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


def create(url: str) -> None:
    database = Database(url, create=True)
    create_schema(database)
    database.close()


def add_study(path: Path, name: str) -> None:
    """As much of a study as its name needs."""
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO studies (study_id, study_name) VALUES (1, ?)", (name,))
        columns = "study_id, spec, facts, trials, metric, state, created_at"
        row = "1, '{}', '{}', 1, 'val_loss', 'running', 0"
        connection.execute(f"INSERT INTO hpo_studies ({columns}) VALUES ({row})")
    connection.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Bound and not listening: nobody else can open it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class TestStorage:
    def test_a_database_that_is_not_there_yet_is_fine_and_not_created(self, tmp_path: Path) -> None:
        (check,) = storage(sqlite(tmp_path / "hpo.db")).values()
        assert check.state == "ok"
        assert "hpo submit" in check.advice
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_one_tells_version_journal_studies_and_clock(self, tmp_path: Path) -> None:
        path = tmp_path / "hpo.db"
        create(sqlite(path))
        add_study(path, "digits")
        found = storage(sqlite(path))
        assert {check.state for check in found.values()} == {"ok"}
        assert sqlite3.sqlite_version in found["storage"].found
        assert "write-ahead" in found["storage"].found
        assert found["studies"].found == "1: digits"
        assert "agrees" in found["clock"].found

    def test_a_database_without_tables_stays_so(self, tmp_path: Path) -> None:
        path = tmp_path / "hpo.db"
        path.touch()
        found = storage(sqlite(path))
        assert found["storage"].state == "warning"
        assert "delete" in found["storage"].found
        assert "hpo submit" in found["studies"].advice
        assert path.stat().st_size == 0
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "hpo.db").write_text("no database, however long one looks at it" * 100)
        (check,) = storage(sqlite(tmp_path / "hpo.db")).values()
        assert check.state == "problem"
        assert "not a database" in check.found

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("missing/hpo.db", "there is no folder"),
            ("file/hpo.db", "there is no folder"),
            ("folder", "is no file"),
        ],
    )
    def test_a_file_that_can_t_be_created(self, tmp_path: Path, path: str, words: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        (check,) = storage(sqlite(tmp_path / path)).values()
        assert check.state == "problem"
        assert words in check.found
        assert check.advice
        assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write whatever the mode says")
    def test_a_file_that_can_t_be_written(self, tmp_path: Path) -> None:
        path = tmp_path / "hpo.db"
        create(sqlite(path))
        path.chmod(0o400)
        assert storage(sqlite(path))["storage"].state == "problem"

    def test_a_server_out_of_reach_is_named_without_its_password(self, closed_port: int) -> None:
        url = f"postgresql://user:s3cret@127.0.0.1:{closed_port}/db"
        (check,) = storage(url).values()
        assert check.state == "problem"
        assert "s3cret" not in repr(check)
        assert "user:***" in check.found
        assert "refused" in check.found
        assert "HPO_STORAGE" in check.advice

    @pytest.mark.parametrize("url", ["hpo.db", "oracle://user:s3cret@host/db", "sqlite://"])
    def test_a_url_that_is_none(self, url: str) -> None:
        (check,) = storage(url).values()
        assert check.state == "problem"
        assert "expected" in check.advice
        assert "s3cret" not in repr(check)

    def test_tables_of_another_program(self, tmp_path: Path) -> None:
        path = tmp_path / "hpo.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE hpo_studies (something INTEGER)")
        connection.close()
        assert "problem" in {check.state for check in storage(sqlite(path)).values()}

    def test_postgresql(self, postgresql: Server) -> None:
        found = storage(postgresql.new_database())
        assert {check.state for check in found.values()} == {"ok"}
        assert found["storage"].found.startswith("postgresql ")
        assert found["studies"].found == "none yet"

    def test_a_database_that_the_server_lacks(self, postgresql: Server) -> None:
        url = postgresql.url.set(database="nowhere").render_as_string(hide_password=False)
        (check,) = storage(url).values()
        assert check.state == "problem"
        assert "does not exist" in check.found


@pytest.mark.parametrize(
    ("seconds", "state", "words"),
    [
        (0.01, "ok", "agrees"),
        (4.0, "ok", "4.0 s ahead of"),
        (-6.0, "warning", "6.0 s behind"),
        (3600.0, "warning", "ahead of"),
    ],
)
def test_clocks_apart_are_a_warning_and_no_danger(seconds: float, state: str, words: str) -> None:
    check = doctor.check_clock(seconds)
    assert check.state == state
    assert words in check.found
    assert ("does not matter for leases" in check.advice) == (state == "warning")


class TestArtifacts:
    def test_a_folder_is_tried_and_left_as_it_was(self, tmp_path: Path) -> None:
        check = doctor.check_artifacts(tmp_path)
        assert check.state in ("ok", "warning")
        assert "can be written" in check.found
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_folder_is_not_created(self, tmp_path: Path) -> None:
        check = doctor.check_artifacts(tmp_path / "deep" / "artifacts")
        assert check.state == "ok"
        assert "first worker" in check.advice
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("path", ["file", "file/artifacts", "file/deep/artifacts"])
    def test_a_file_in_the_way(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "file").touch()
        check = doctor.check_artifacts(tmp_path / path)
        assert check.state == "problem"
        assert "--artifacts" in check.advice

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write whatever the mode says")
    def test_a_folder_that_can_t_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        assert doctor.check_artifacts(tmp_path).state == "problem"
        assert doctor.check_artifacts(tmp_path / "artifacts").state == "problem"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such file system")
    def test_a_file_system_that_takes_no_files(self) -> None:
        assert doctor.check_artifacts(Path("/proc/self")).state == "problem"


def test_the_installed_versions_are_named() -> None:
    found = {check.name: check for check in doctor.check_versions()}
    assert list(found) == ["python", "hpo", "optuna", "keras", "tensorflow", "keras-tuner"]
    assert {check.state for check in found.values()} == {"ok"}
    assert found["optuna"].found.startswith("5.")


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._PACKAGES, "no_such_package", ("no-such-package",))
    check = list(doctor.check_versions())[-1]
    assert (check.name, check.state) == ("no-such-package", "problem")
    assert "make install" in check.advice


@pytest.mark.parametrize(("available", "state"), [(600_000_000, "warning"), (8 * 10**9, "ok")])
def test_memory_is_counted_in_trainers(available: int, state: str) -> None:
    check = doctor.check_memory(available)
    assert check.state == state
    assert f"room for {available // 500_000_000} trainers" in check.found


class TestGpu:
    def install(self, folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
        command = folder / "nvidia-smi"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        check = doctor.check_gpu()
        assert check.state == "ok"
        assert "no nvidia-smi" in check.found

    def test_one_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        line = "GPU 0: NVIDIA H200 (UUID: GPU-4c1)"
        self.install(tmp_path, f"echo '{line}'; echo '  MIG 1g.18gb Device 0:'", monkeypatch)
        check = doctor.check_gpu()
        assert check.found.startswith("GPU 0: NVIDIA H200")
        assert "UUID" not in check.found
        cpu_only = doctor._version("tensorflow") is None
        assert (check.state == "warning") == cpu_only
        assert ("TENSORFLOW=gpu" in check.advice) == cpu_only

    @pytest.mark.parametrize("script", ["exit 9", "echo No devices were found"])
    def test_a_driver_that_does_not_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
    ) -> None:
        self.install(tmp_path, script, monkeypatch)
        check = doctor.check_gpu()
        assert check.state == "warning"
        assert "nvidia-smi" in check.advice


def test_byte_code_is_looked_for_where_python_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("keras", "tensorflow"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise RuntimeError('was imported')")
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    check = doctor.check_byte_code()
    assert check.state == "warning"
    assert "2 of 2" in check.found
    _, _, command = check.advice.partition(": ")
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(command.split(), env=environment, check=True)
    assert doctor.check_byte_code().state == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="trainers are forked on Linux alone")
def test_the_fork_server_needs_a_short_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.check_fork_server().state == "ok"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    assert "TMPDIR" in doctor.check_fork_server().advice


class TestCommand:
    def test_a_healthy_machine(self, hpo: Hpo, tmp_path: Path) -> None:
        done = hpo("doctor")
        assert (done.returncode, done.stderr) == (0, "")
        names = ("storage", "artifacts", "tensorflow", "memory", "byte-code", "fork server")
        assert [name for name in names if name not in done.stdout] == []
        assert list(tmp_path.iterdir()) == []

    def test_json(self, hpo: Hpo, tmp_path: Path) -> None:
        create(sqlite(tmp_path / "hpo.db"))
        done = hpo("doctor", "--json")
        checks = [Check(**each) for each in json.loads(done.stdout)]
        assert done.returncode == 0
        assert {"storage", "studies", "clock"} <= {check.name for check in checks}

    def test_a_database_out_of_reach(self, hpo: Hpo, tmp_path: Path, closed_port: int) -> None:
        url = f"postgresql://user:s3cret@127.0.0.1:{closed_port}/db"
        done = hpo("doctor", HPO_STORAGE=url)
        assert done.returncode == 1
        assert "problem" in done.stdout
        assert "user:***" in done.stdout
        assert "s3cret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        # The other checks are made all the same.
        assert "fork server" in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_no_keras_is_imported(self) -> None:
        code = (
            "import sys; from pathlib import Path; from hpo.launch.doctor import examine; "
            "list(examine('sqlite:///no.db', Path('artifacts'))); "
            "print([m for m in ('keras', 'tensorflow', 'optuna') if m in sys.modules])"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
