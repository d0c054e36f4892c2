"""docs/study-file.md names every key of every model, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from hpo.spec import load_study_file, models

REFERENCE = Path(__file__).parents[2] / "docs" / "study-file.md"
HEADINGS: dict[str, type[BaseModel]] = {
    "Top level": models.StudySpec,
    "data": models.DataSpec,
    "data.source of type sklearn": models.SklearnSource,
    "data.source of type keras": models.KerasSource,
    "data.source of type npz": models.NpzSource,
    "data.source of type npy": models.NpySource,
    "data.source of type table": models.TableSource,
    "data.source.columns": models.Column,
    "data.source of type images": models.ImagesSource,
    "data.source.labels": models.ImageLabels,
    "data.source of type sequences": models.SequencesSource,
    "data.source of type tfrecord": models.TfRecordSource,
    "data.source.features": models.TfRecordFeature,
    "data.source of type python": models.PythonSource,
    "data.split": models.Split,
    "data.preprocess": models.Preprocess,
    "data.preprocess.crosses": models.Cross,
    "model": models.ModelSpec,
    "objective": models.Objective,
    "training": models.Training,
    "training.early_stopping": models.EarlyStopping,
    "training.augment": models.Augment,
    "training.schedule of type cosine": models.CosineSchedule,
    "training.schedule of type exponential": models.ExponentialSchedule,
    "training.schedule of type step": models.StepSchedule,
    "training.schedule of type plateau": models.PlateauSchedule,
    "Parameter of type float": models.FloatParameter,
    "Parameter of type int": models.IntParameter,
    "Parameter of type categorical": models.CategoricalParameter,
    "Parameter of type bool": models.BoolParameter,
    "search": models.Search,
    "search.sampler": models.Sampler,
    "search.pruner": models.Pruner,
    "search.retries": models.Retries,
}


def section(heading: str) -> str:
    text = REFERENCE.read_text(encoding="utf-8")
    found = re.search(
        rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, heading
    return found[1]


def rows(heading: str) -> dict[str, tuple[str, str]]:
    """Maps the keys of a section's table to type and default."""
    cells = [
        re.split(r" *\| *", line) for line in section(heading).splitlines() if line[:3] == "| `"
    ]
    return {cell[1].strip("`"): (cell[2], cell[3]) for cell in cells}


def default_in_words(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, models.Sampler | models.Pruner):
        return value.type
    if isinstance(value, BaseModel):
        return "all defaults"
    if value == {}:
        return "empty"
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def test_every_model_has_a_section() -> None:
    every = {value for value in vars(models).values() if isinstance(value, type)}
    assert {m for m in every if issubclass(m, BaseModel)} - {BaseModel, models.Frozen} == set(
        HEADINGS.values()
    )


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_table_names_the_keys_and_defaults_of_its_model(heading: str) -> None:
    fields = HEADINGS[heading].model_fields
    defaults = {key: default for key, (_, default) in rows(heading).items()}
    assert defaults == {key: default_in_words(field) for key, field in fields.items()}


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_table_names_every_choice(heading: str) -> None:
    for key, field in HEADINGS[heading].model_fields.items():
        if get_origin(field.annotation) is Literal:
            kind, _ = rows(heading)[key]
            names = [name.strip("` ") for name in kind.split(",")]
            assert names == [str(name) for name in get_args(field.annotation)]


def test_the_trainer_names_are_listed() -> None:
    for name in models.TRAINING_PARAMETERS:
        assert f"`{name}`" in section("space")


def test_the_example_is_a_study_file(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", section("Example"), re.DOTALL)
    assert example
    file = tmp_path / "study.yaml"
    file.write_text(example[1])
    assert load_study_file(file).spec.name == "digits-mlp"


def test_links_resolve() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= anchors
