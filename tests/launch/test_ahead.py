"""Data that is opened while Keras is imported: by whom, how often, and what becomes of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hpo.data import open_search_data
from hpo.data.sharing import SharedData
from hpo.errors import DataError
from hpo.launch.ahead import DataAhead
from hpo.spec.models import DataSpec
from tests.conftest import ROOT, wait_for

MODULE = """
import random, sys, time
import numpy as np

def _rows(rng):
    return rng.normal(size=(40, 3)), np.arange(40) % 2

def seeded():
    print("a word of the user's", flush=True)
    return _rows(np.random.default_rng(0))

def drawn():
    return _rows(np.random.default_rng())

def drawn_globally():
    return np.random.normal(size=(40, 3)), np.arange(40) % 2

def drawn_by_python():
    return [[random.random()] for _ in range(40)], np.arange(40) % 2

def with_keras():
    try:
        import keras
    except ImportError:
        pass
    return seeded()

def fails():
    raise OSError("the disk is on fire")

def leaves():
    sys.exit(3)

def sleeps():
    time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "ahead_source.py").write_text(MODULE)
    return tmp_path


def python(name: str) -> DataSpec:
    return DataSpec.model_validate({"source": {"type": "python", "load": f"ahead_source:{name}"}})


def test_the_data_lies_in_the_folder_when_its_fingerprint_is_told(project: Path) -> None:
    shared = project / "shared"
    with DataAhead(python("seeded"), project, shared) as ahead:
        fingerprint = ahead.fingerprint()
        assert fingerprint is not None
        found = SharedData(shared, python("seeded")).take(fingerprint)
        ahead.check_same()
    assert found is not None
    assert found.signature == open_search_data(python("seeded"), project).signature


@pytest.mark.parametrize("name", ["drawn", "drawn_globally", "drawn_by_python"])
def test_rows_that_are_drawn_without_a_seed_are_refused(name: str, project: Path) -> None:
    with DataAhead(python(name), project, project / "shared") as ahead:
        assert ahead.fingerprint() is not None
        with pytest.raises(DataError, match=f"ahead_source:{name} returns other data each time"):
            ahead.check_same()


@pytest.mark.parametrize("name", ["with_keras", "fails", "leaves", "not_there"])
def test_a_trainer_is_left_what_does_not_work_here(name: str, project: Path) -> None:
    with DataAhead(python(name), project, project / "shared") as ahead:
        assert ahead.fingerprint() is None
        ahead.check_same()
    assert not any((project / "shared").glob("data/*"))


def test_files_need_no_second_look(project: Path) -> None:
    data = DataSpec.model_validate({"source": {"type": "sklearn", "name": "iris"}})
    with DataAhead(data, project, project / "shared") as ahead:
        assert ahead.fingerprint() == open_search_data(data, project).signature.fingerprint
        ahead.check_same()


@pytest.mark.parametrize(
    "source",
    [{"type": "table", "path": "a.csv", "target": "y"}, {"type": "keras", "name": "mnist"}],
    ids=["table", "keras"],
)
def test_what_needs_keras_is_for_a_trainer(source: dict[str, str], project: Path) -> None:
    data = DataSpec.model_validate({"source": source})
    before = psutil.Process().children()
    with DataAhead(data, project, project / "shared") as ahead:
        assert psutil.Process().children() == before
        assert ahead.fingerprint() is None
        ahead.check_same()


def test_nothing_goes_on_behind_it(project: Path) -> None:
    before = set(psutil.Process().children(recursive=True))

    def started() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True)) - before

    with DataAhead(python("sleeps"), project, project / "shared"):
        # The second one calls the function again.
        wait_for(lambda: len(started()) == 2)
        processes = started()
    wait_for(lambda: not any(process.is_running() for process in processes))


OWNER = """
import sys, time
from pathlib import Path
from hpo.launch.ahead import DataAhead
from tests.launch.test_ahead import python
with DataAhead(python("sleeps"), Path(sys.argv[1]), Path(sys.argv[1])):
    print("begun", flush=True)
    time.sleep(600)
"""


def test_nothing_goes_on_when_its_owner_was_killed(project: Path) -> None:
    owner = psutil.Popen(
        [sys.executable, "-c", OWNER, str(project)], cwd=ROOT, stdout=subprocess.PIPE
    )
    wait_for(lambda: len(owner.children(recursive=True)) == 2)
    processes = owner.children(recursive=True)
    owner.kill()
    owner.communicate()
    wait_for(lambda: not any(process.is_running() for process in processes))
