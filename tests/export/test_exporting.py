from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpo.errors import UsageError
from hpo.export.exporting import check_bundle_folder


def test_a_folder_for_a_bundle(tmp_path: Path) -> None:
    check_bundle_folder(tmp_path / "not" / "yet" / "there")
    check_bundle_folder(tmp_path)
    (tmp_path / "model.keras").touch()
    (tmp_path / "notes.txt").touch()
    check_bundle_folder(tmp_path)


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists and is no bundle; choose another --out"):
        check_bundle_folder(tmp_path)


def test_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is no folder; choose another --out"):
        check_bundle_folder(tmp_path / "file" / "bundle")


def test_a_place_where_nobody_may_write(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UsageError, match="disk can't be written to; choose another --out"):
        check_bundle_folder(small_disk / "not" / "there")
