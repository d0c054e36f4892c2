"""Modules that run when something of them is asked for: as if they had been imported at once."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.worker.deferred import DeferredModules, run_module
from hpo.worker.forkserver import start_forkserver
from hpo.worker.trainers import Trainers
from tests.conftest import ROOT, wait_for

PACKAGE = {
    "__init__.py": "import sys\nruns = sys.runs\nruns.append('pack')\n__version__ = '2'\n",
    "one.py": "import sys\nsys.runs.append('one')\nvalue = 1\n",
    "two.py": "import pack, sys\nsys.runs.append('two')\nvalue = pack.runs\n",
    "asks.py": "import pack.asks\nfound = hasattr(pack.asks, 'later')\nlater = 1\n",
    "answers.py": "def __getattr__(name):\n    return name.upper()\n",
    "fails.py": "import sys\nsys.runs.append('fails')\nraise ImportError('a library is missing')\n",
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The modules of a package `pack` that have run, in their order."""
    (tmp_path / "pack").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "pack" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "runs", [], raising=False)
    finders = list(sys.meta_path)
    yield sys.runs  # type: ignore[attr-defined]
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == "pack"]:
        del sys.modules[name]


def test_a_module_runs_when_it_is_asked_for_a_name_and_once(runs: list[str]) -> None:
    told: list[str] = []
    deferred = DeferredModules(["pack"])
    deferred.on_run = told.append
    import pack  # type: ignore[import-not-found]

    assert pack.__name__ == "pack"
    assert Path(pack.__file__).is_file()
    assert (runs, told) == ([], [])
    assert pack.runs is runs
    assert pack.__version__ == "2"
    assert (runs, told) == (["pack"], ["pack"])
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        pack.other  # noqa: B018
    assert runs == ["pack"]


def test_looking_at_all_modules_runs_none(runs: list[str]) -> None:
    DeferredModules(["pack"])
    import pack

    for module in list(sys.modules.values()):
        hasattr(module, "__wrapped__")
        hasattr(module, "__file__")
    assert runs == []
    assert pack.__version__ == "2"
    assert runs == ["pack"]


def test_a_submodule_runs_its_package_first(runs: list[str]) -> None:
    DeferredModules(["pack"])
    import pack

    assert runs == []
    importlib.import_module("pack.one")
    assert runs == ["pack", "one"]
    assert pack.one.value == 1


def test_a_deferred_submodule_leaves_its_package_alone(runs: list[str]) -> None:
    DeferredModules(["pack", "pack.two"])
    import pack.two

    assert runs == []
    assert pack.two.value is runs
    assert runs == ["pack", "two"]


def test_from_import_runs_it(runs: list[str]) -> None:
    DeferredModules(["pack.one", "pack"])
    from pack.one import value  # type: ignore[import-not-found]

    assert value == 1
    assert runs == ["pack", "one"]
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from pack.one import nothing")


def test_a_module_that_asks_itself_runs_once(runs: list[str]) -> None:
    DeferredModules(["pack.asks"])
    from pack import asks

    assert (asks.later, asks.found) == (1, False)
    assert runs == ["pack"]


def test_a_module_s_own_answers_stay(runs: list[str]) -> None:
    DeferredModules(["pack.answers"])
    from pack import answers

    assert (answers.first, answers.second) == ("FIRST", "SECOND")


def test_a_module_that_can_t_run_says_so_each_time(runs: list[str]) -> None:
    DeferredModules(["pack.fails"])
    from pack import fails

    for _ in range(2):
        with pytest.raises(ImportError, match="a library is missing"):
            fails.anything  # noqa: B018
    assert runs == ["pack", "fails", "fails"]


def test_one_that_is_not_there_is_missed_at_once(runs: list[str]) -> None:
    DeferredModules(["pack.nothing", "nothing_at_all"])
    for name in ("pack.nothing", "nothing_at_all"):
        with pytest.raises(ModuleNotFoundError, match=name):
            importlib.import_module(name)


def test_a_module_can_be_run_by_name(runs: list[str]) -> None:
    DeferredModules(["pack", "pack.one"])
    importlib.import_module("pack.one")
    for name in ("pack.one", "pack.one", "not.imported"):
        run_module(name)
    assert runs == ["pack", "one"]


IMPORT = """
import sys, typing
from hpo.worker import forkserver
check = typing._type_check
forkserver.import_everything()
assert typing._type_check is check
print(*[name for name in sys.argv[1:] if name in sys.modules])
import keras, keras_tuner, pandas
keras.wrappers.SKLearnClassifier, keras_tuner.SklearnTuner, keras.visualization.plot_image_gallery
assert keras.src.trainers.data_adapters.array_slicing.can_slice_array(pandas.Series([1]))
print("usable")
"""


@pytest.mark.keras
def test_keras_comes_without_what_trainers_seldom_use() -> None:
    slow = ["keras", "keras_tuner", "matplotlib", "pandas.core", "scipy.stats", "sklearn.base"]
    slow += ["scipy.sparse", "tensorflow.python.keras.engine.training_v1", "grpc", "h5py.h5"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *slow], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines() == ["keras keras_tuner", "usable"]


NAMES = """
import json, sys
from hpo.worker import deferred, forkserver
if sys.argv[1] == "deferred":
    forkserver.import_everything()
import keras_tuner, tensorflow
import hpo.training.preflight
for name in deferred.SELDOM_USED:
    deferred.run_module(name)
seen, names = set(), {}
OURS = ("tensorflow._api", "keras_tuner")

def walk(value, path):
    seen.add(id(value))
    for name in dir(value):
        if name.startswith("_"):
            continue
        found = getattr(value, name)
        if hasattr(found, "__path__"):
            names[f"{path}.{name}"] = found.__name__
            if id(found) not in seen and found.__name__.startswith(OURS):
                walk(found, f"{path}.{name}")
        else:
            names[f"{path}.{name}"] = getattr(found, "__qualname__", type(found).__qualname__)

walk(tensorflow, "tf")
walk(keras_tuner.src, "keras_tuner.src")
json.dump(names, sys.stdout)
"""


@pytest.mark.keras
@pytest.mark.slow
def test_tensorflow_and_kerastuner_have_the_same_names_in_the_end() -> None:
    """To run a module later may hide it: its parents may have got another of that name."""

    def names(how: str) -> dict[str, str]:
        command = [sys.executable, "-c", NAMES, how]
        done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found

    at_once, later = names("at once"), names("deferred")
    assert len(at_once) > 10_000
    assert {"tf.lite.TFLiteConverter", "tf.compat.v1.Session"} <= at_once.keys()
    assert later == at_once


@pytest.mark.keras
def test_what_a_leading_trainer_had_to_run_the_next_one_has() -> None:
    server = start_forkserver()
    alone, leading = Trainers(server.address).start(), Trainers(server.address).start(leading=True)
    alone.call("pandas:Series", data=[1])
    leading.call("sklearn.datasets:load_iris")

    def has_it() -> bool:
        trainer = Trainers(server.address).start()
        imported = trainer.call("tests.worker.test_deferred:imported")
        trainer.kill()
        assert "pandas.core" not in imported
        return "sklearn.base" in imported

    wait_for(has_it)
    for trainer in (alone, leading):
        trainer.kill()
    server.close()


def imported() -> list[str]:
    return list(sys.modules)
