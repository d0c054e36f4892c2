from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hpo.spec import study_schema, study_schema_text


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return study_schema()


def nested(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
    for inner in (
        part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    ):
        yield from nested(inner)


def objects(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"StudySpec": schema, **schema["$defs"]}


def kinds(part: dict[str, Any]) -> set[str]:
    return {option.get("type", option.get("$ref", "oneOf")) for option in part["anyOf"]}


def test_it_says_what_it_is(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["version", "name", "data", "model", "objective", "search"]
    assert schema["properties"]["version"]["const"] == 1


def test_every_object_and_key_is_described(schema: dict[str, Any]) -> None:
    for name, part in objects(schema).items():
        assert part["title"], name
        assert part["description"], name
        for key, field in part["properties"].items():
            assert key == "type" or field.keys() & {"description", "$ref"}, (name, key)


def test_only_strategies_take_other_keys(schema: dict[str, Any]) -> None:
    open_ones = {n for n, part in objects(schema).items() if part["additionalProperties"]}
    assert open_ones == {"Sampler", "Pruner"}


def test_every_reference_resolves(schema: dict[str, Any]) -> None:
    references = {part["$ref"] for part in nested(schema) if "$ref" in part}
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_durations_are_numbers_or_text(schema: dict[str, Any]) -> None:
    timeout = schema["$defs"]["Search"]["properties"]["timeout"]
    assert kinds(timeout) == {"number", "string", "null"}


@pytest.mark.parametrize(("key", "name"), [("sampler", "tpe"), ("pruner", "hyperband")])
def test_a_strategy_is_a_name_or_a_mapping(schema: dict[str, Any], key: str, name: str) -> None:
    plain, mapping = schema["$defs"]["Search"]["properties"][key]["anyOf"]
    assert name in plain["enum"]
    assert mapping == {"$ref": f"#/$defs/{key.title()}"}


def test_a_space_entry_is_a_value_or_a_typed_mapping(schema: dict[str, Any]) -> None:
    entry = schema["properties"]["space"]["additionalProperties"]
    assert kinds(entry) == {"oneOf", "boolean", "integer", "number", "string"}
    parameters = [option["$ref"] for option in entry["anyOf"][0]["oneOf"]]
    assert [name.removeprefix("#/$defs/") for name in parameters] == [
        "FloatParameter",
        "IntParameter",
        "CategoricalParameter",
        "BoolParameter",
    ]
    assert schema["$defs"]["FloatParameter"]["required"] == ["type", "low", "high"]


def test_it_holds_no_keyword_of_openapi(schema: dict[str, Any]) -> None:
    assert not any("discriminator" in part for part in nested(schema))


def test_the_text_is_stable(schema: dict[str, Any]) -> None:
    text = study_schema_text()
    assert json.loads(text) == schema
    assert text.endswith("}\n")
    assert text == study_schema_text()
    assert list(json.loads(text)) == sorted(schema)
