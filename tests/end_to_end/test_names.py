"""Row 23 of docs/faults.md: names and texts at their limits, end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from hpo.errors import StorageError
from hpo.study.database import Database
from hpo.study.studies import study_names
from tests.end_to_end.conftest import Project, study_content
from tests.servers import Server

pytestmark = [pytest.mark.keras, pytest.mark.slow]

LONG = "long_" + "x" * 390
BUILDER = """
import keras

def build(hp, input_shape, num_outputs):
    values = {
        "rate": hp.Float("rate", 0.0, 0.1),
        "Rate": hp.Float("Rate", 0.2, 0.3),
        "long": hp.Float("long_" + "x" * 390, 0.0, 1.0),
        "longer": hp.Float("y" * 512, 0.0, 1.0),
    }
    kind = hp.Choice("kind", ["mlp", "MLP", "mlp "])
    with hp.conditional_scope("kind", ["mlp"]):
        hp.Int("units", 1, 9)
    with hp.conditional_scope("kind", ["mlp "]):
        hp.Int("units", 11, 19)
    for index in range(2):
        hp.Int(f"depth_{index}", 1, 2)
    if kind == "MLP":
        raise RuntimeError("\\u00e4" * 600_000)
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax"),
    ])
"""
PLAIN = """
import keras

def build(hp, input_shape, num_outputs):
    hp.Float(NAME, 0.0, 1.0)
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Dense(num_outputs, "softmax"),
    ])
"""


SERVERS = [pytest.param(name, marks=pytest.mark.long) for name in ("postgresql", "mariadb")]


@pytest.fixture(params=["sqlite", *SERVERS])
def storage(
    request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of the database that the project's commands use."""
    if request.param == "sqlite":
        yield project.storage
        return
    server: Server = request.getfixturevalue(request.param)
    url = server.new_database()
    monkeypatch.setenv("HPO_STORAGE", url)
    yield url
    server.drop(url)


def trials_in(url: str) -> list[optuna.trial.FrozenTrial]:
    """As plain Optuna sees them."""
    database = Database(url)
    engine_url = database.engine.url.render_as_string(hide_password=False)
    database.close()
    storage = optuna.storages.RDBStorage(engine_url, skip_table_creation=True)
    try:
        return optuna.load_study(study_name="small", storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_row_23_what_is_allowed_works(project: Project, storage: str) -> None:
    space: dict[str, Any] = {
        LONG: {"type": "float", "low": 0.5, "high": 0.6},
        "depth": {"type": "int", "low": 2, "high": 2, "repeat": "repeats"},
        "repeats": 2,
    }
    content = study_content(space=space, search={"trials": 12, "sampler": "random"})
    content["training"]["epochs"] = 1
    project.write(content)
    text = BUILDER.replace("    for index", '    hp.Fixed("repeats", 2)\n    for index')
    (project.folder / "builder.py").write_text(text)
    submitted = project.hpo("submit", "study.yaml")
    assert submitted.returncode == 0, submitted.stderr
    done = project.hpo("worker", "small")
    assert done.returncode == 0, done.stderr[-2000:]
    trials = trials_in(storage)
    always = {"rate", "Rate", LONG, "y" * 512, "kind", "depth_0", "depth_1"}
    more = {"mlp": {"units[kind=mlp]"}, "mlp ": {"units[kind=mlp ]"}, "MLP": set()}
    for trial in trials:
        kind = trial.params["kind"]
        assert set(trial.params) == always | more[kind]
        assert trial.params["rate"] <= 0.1 < 0.2 <= trial.params["Rate"]
        assert 0.5 <= trial.params[LONG] <= 0.6
        assert trial.state.name == ("FAIL" if kind == "MLP" else "COMPLETE")
        if kind == "MLP":
            assert "\u00e4" * 600_000 in trial.user_attrs["reason"]
    assert {trial.params["kind"] for trial in trials} == set(more)


@pytest.mark.parametrize("name", ["x" * 600, "rate "])
def test_row_23_a_builder_s_name_is_refused(project: Project, storage: str, name: str) -> None:
    project.write(study_content(space={}))
    (project.folder / "builder.py").write_text(PLAIN.replace("NAME", repr(name)))
    check_refused(project, storage, "the builder asks for a parameter")


A_FLOAT = {"type": "float", "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["x" * 600], "expected a name of at most 400 characters, received one of 600"),
        (["rate "], "without blanks around it"),
        (["rate_0", "rate"], "is a name that"),
    ],
)
def test_row_23_a_study_file_s_name_is_refused(
    project: Project, storage: str, names: list[str], words: str
) -> None:
    entries: dict[str, Any] = {name: dict(A_FLOAT) for name in names}
    if "rate_0" in names:
        entries |= {"rate": A_FLOAT | {"repeat": "depth"}}
    project.write(study_content(space=entries))
    check_refused(project, storage, words)


def check_refused(project: Project, storage: str, words: str) -> None:
    """One clear error, and nothing exists."""
    refused = project.hpo("submit", "study.yaml")
    assert refused.returncode == 2, refused.stderr
    text = " ".join(refused.stderr.split())
    assert words in text
    assert text.count(words) == 1
    assert "Traceback" not in text
    if storage.startswith("sqlite"):
        assert not (project.folder / "hpo.db").exists()
        return
    database = Database(storage)
    try:
        assert study_names(database) == []
    except StorageError as error:
        pytest.fail(str(error))
    finally:
        database.close()
