"""A folder and an object store do the same, and what can't be used is refused in one message."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpo.artifacts import (
    Place,
    check_writable,
    list_folder,
    open_artifacts,
    remove_file,
    remove_folder,
    shown,
    write_whole,
)
from hpo.errors import ArtifactsError, UsageError
from tests.conftest import ROOT, Hpo
from tests.objectstore import S3Server


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return tmp_path / "artifacts"
    return open_artifacts(f"{request.getfixturevalue('bucket')}/pre fix#1/")


def names(folder: Place) -> list[str]:
    return sorted(path.name for path in list_folder(folder))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("artifacts", "artifacts"),
        ("/a/b", "/a/b"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
    ],
)
def test_a_folder(text: str, path: str) -> None:
    assert open_artifacts(text) == Path(path)


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:/bucket", "s33://bucket", "memory://a", "file://host/a", "simplecache::s3://b"],
)
def test_a_url_that_can_t_be_used(text: str) -> None:
    with pytest.raises(UsageError, match="expected a folder, or a URL such as s3://bucket/prefix"):
        open_artifacts(text)


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="the driver is installed")
def test_a_missing_driver_is_named_with_its_package(hpo: Hpo, tmp_path: Path) -> None:
    done = hpo("doctor", "--artifacts", "gs://bucket/prefix")
    assert done.returncode == 2
    assert "pip install 'keras-hpo[gs]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_not_shown() -> None:
    assert shown("sftp://me:s3cret@host/a") == "sftp://me:***@host/a"


def test_a_place_that_is_tried_is_left_as_it_was(place: Place) -> None:
    check_writable(place)
    assert names(place) == []


def test_files_come_and_go(place: Place) -> None:
    for name in ("a", "b"):
        write_whole(place / "deep" / name, lambda file, name=name: file.write(name.encode()))
    write_whole(place / "deep" / "a", lambda file: file.write(b"again"))
    assert (place / "deep" / "a").read_bytes() == b"again"
    assert names(place) == ["deep"]
    assert names(place / "deep") == ["a", "b"]
    for _ in range(2):
        remove_file(place / "deep" / "a")
        assert names(place / "deep") == ["b"]
    for _ in range(2):
        remove_folder(place / "deep")
        assert names(place / "deep") == []


def test_what_another_process_writes_is_seen_at_once(place: Place) -> None:
    code = "import sys; from hpo.artifacts import *; "
    code += "write_whole(open_artifacts(sys.argv[1]) / 'new', lambda file: file.write(b'new'))"
    write_whole(place / "old", lambda file: file.write(b"old"))
    assert names(place) == ["old"]
    subprocess.run([sys.executable, "-c", code, str(place)], cwd=ROOT, check=True)
    assert names(place) == ["new", "old"]


def test_the_store_of_pictures(place: Place) -> None:
    from optuna.artifacts.exceptions import ArtifactNotFound

    from hpo.worker.paths import ArtifactStore

    store = ArtifactStore(place)
    store.write("0a1b", io.BytesIO(b"picture"))
    with store.open_reader("0a1b") as file:
        assert file.read() == b"picture"
    store.remove("0a1b")
    with pytest.raises(ArtifactNotFound):
        store.open_reader("0a1b")


def test_a_bucket_that_is_not_there_is_not_created(bucket: str) -> None:
    place = open_artifacts(f"{bucket}-of-somebody/else")
    for _ in range(2):
        with pytest.raises(ArtifactsError, match="bucket does not exist; check --artifacts"):
            check_writable(place)


def test_the_doctor_looks_at_an_object_store(hpo: Hpo, bucket: str) -> None:
    done = hpo("doctor", "--artifacts", f"{bucket}/a")
    assert done.returncode == 0, done.stdout
    assert f"{bucket}/a can be written" in done.stdout
    assert names(open_artifacts(bucket)) == []
    done = hpo("doctor", "--artifacts", f"{bucket}-of-somebody/a")
    assert done.returncode == 1
    assert "bucket does not exist" in done.stdout


def test_no_credentials_are_told(hpo: Hpo, s3_server: S3Server, tmp_path: Path) -> None:
    environment = {
        name: value for name, value in s3_server.environment.items() if "ACCESS_KEY" not in name
    }
    done = hpo("doctor", "--artifacts", "s3://bucket/a", HOME=str(tmp_path), **environment)
    assert done.returncode == 1
    assert "Unable to locate credentials" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="no such file system")
def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a", lambda file: file.write(b"old"))
    with pytest.raises(ArtifactsError, match="No space left on device; make room there"):
        write_whole(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_command_on_folders_imports_no_fsspec() -> None:
    code = "import sys, hpo.cli.options; hpo.cli.options.open_artifacts('a'); "
    code += "print([m for m in ('fsspec', 'upath', 's3fs', 'tenacity') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
