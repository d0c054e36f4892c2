from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest

from hpo.spec import StudySpec, load_study_file, study_file_text, write_study_file

from .conftest import MakeSpec

TRICKY = [
    *("no", "yes", "on", "true", "~", "null", "", "-", "?", "<<", "=", "1", "0x10", "010", "1e5"),
    *("1e-05", ".5", "5.", "+.5e3", ".inf", ".NaN", "1_000", "12:30", "2020-01-01", "0o7", "1."),
    *(" padded ", "a: b", "a #b", "#b", "[a]", "{a: b}", "'", '"', "\\", "*a", "&a", "!a", "%a"),
    *(
        "a\nb",
        "a\n",
        "\ta",
        "a\u0085b",
        "é",
        "😀",
        "\u2028",
        "\ufeff",
        "@",
        "`",
        "| x",
        "> x",
        "x" * 300,
    ),
    *("a " * 80, "---", "...", "a\x07b", "a,b", ",", "- a", ": a"),
]
NUMBERS = [0.0, -0.0, 1e-05, 1e22, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1.0, -3, 10**20, 0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def there_and_back(spec: StudySpec, file: Path) -> StudySpec:
    write_study_file(spec, file)
    return load_study_file(file).spec


def typed(value: Any) -> Any:
    """Tells 1, 1.0 and true apart, also inside of lists and mappings."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    return [typed(v) for v in value] if isinstance(value, list) else (type(value), repr(value))


def test_text_and_numbers_stay_what_they_are(make_spec: MakeSpec, file: Path) -> None:
    args = {"text": TRICKY, "numbers": NUMBERS, "flags": [True, False, None], "none": None}
    keys = {text: index for index, text in enumerate(TRICKY) if text != "<<"}
    spec = make_spec(model={"builder": "models.mlp:MLP", "args": {**args, "keys": keys}})
    assert typed(there_and_back(spec, file).model.args) == typed(spec.model.args)


def test_every_kind_of_entry_comes_back(make_spec: MakeSpec, file: Path) -> None:
    spec = make_spec(
        data={
            "source": {"type": "npz", "path": "data/x.npz", "y": "no"},
            "split": {"validation": 0.1, "seed": 3},
            "preprocess": {"normalize": "minmax", "reshape": [8, 8, 1]},
        },
        training={
            "class_weight": {"0": 1, "no": 2.5},
            "metrics": ["accuracy"],
            "schedule": {"type": "plateau", "patience": 3},
            "early_stopping": {"patience": 5, "start_epoch": 2},
        },
        space={
            "units": {"type": "int", "low": 1, "high": 9, "step": 2, "repeat": "depth"},
            "depth": 3,
            "rate": {"type": "float", "low": 1e-05, "high": 1, "when": {"kind": ["no", 1, 0.5]}},
            "kind": {"type": "categorical", "choices": ["no", 1, 0.5, "1"]},
            "flag": {"type": "bool"},
            "fixed": 1e-05,
            "text": "off",
        },
        search={
            "trials": 7,
            "sampler": {"type": "tpe", "n_startup_trials": 3, "nested": {"a": [1, {"b": None}]}},
            "pruner": "hyperband",
            "timeout": "2h",
            "retries": {"crash": 0},
        },
    )
    again = there_and_back(spec, file)
    assert again == spec
    assert again.to_json() == spec.to_json()
    assert list(again.space) == list(spec.space)


@pytest.mark.parametrize("seed", range(20))
def test_random_specs_come_back(make_spec: MakeSpec, file: Path, seed: int) -> None:
    rng = random.Random(seed)
    spec = make_spec(space={f"p{n}": random_entry(rng) for n in range(8)})
    again = there_and_back(spec, file)
    assert again == spec
    assert again.to_json() == spec.to_json()


def random_entry(rng: random.Random) -> Any:
    low, high = sorted(rng.uniform(-1, 1) * 10.0 ** rng.randint(-20, 20) for _ in range(2))
    texts = [f"{n}".join(rng.choices(string.printable, k=rng.randint(2, 30))) for n in range(4)]
    return rng.choice(
        [
            {"type": "float", "low": low, "high": high},
            {"type": "int", "low": int(low), "high": int(high)},
            {"type": "categorical", "choices": [*texts, low, int(high) + 2]},
            *(low, int(high), rng.random() < 0.5, texts.pop()),
        ]
    )


def test_defaults_are_left_out(make_spec: MakeSpec) -> None:
    spec = make_spec(
        training={"epochs": 20, "batch_size": 8},
        space={"rate": {"low": 0, "high": 1, "when": {"a": 1}, "type": "float"}},
        search={"trials": 5, "sampler": "tpe", "pruner": "median"},
    )
    assert study_file_text(spec, "Best of study digits.\n\nTrial 7") == (
        "# Best of study digits.\n"
        "#\n"
        "# Trial 7\n"
        "version: 1\n"
        "name: digits\n"
        "data:\n"
        "  source: {type: sklearn, name: digits}\n"
        "model:\n"
        '  builder: "models.mlp:MLP"\n'
        "objective: {metric: val_accuracy, direction: maximize}\n"
        "training: {batch_size: 8}\n"
        "space:\n"
        "  rate: {type: float, when: {a: 1}, low: 0.0, high: 1.0}\n"
        "search: {trials: 5, pruner: median}\n"
    )


def test_an_old_file_is_replaced_whole(make_spec: MakeSpec, file: Path) -> None:
    file.write_text("x" * 10_000)
    assert there_and_back(make_spec(), file) == make_spec()
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]


def test_nothing_is_left_behind_where_writing_fails(make_spec: MakeSpec, file: Path) -> None:
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_study_file(make_spec(), file)
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]
