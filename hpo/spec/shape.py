"""What the models expect at a place of the study file, looked up in their annotations."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

# A type as it stands in an annotation, or the field that carries it; Any where nothing is known.
Kind = Any


def kind_at(root: type[BaseModel], path: tuple[str | int, ...], values: Any) -> Kind:
    """Finds the field or type that `path` leads to when `values` is read as `root`."""
    kind: Kind = root
    for key in path:
        kind = _step(kind, key, values)
        values = _child(values, key)
    return kind


def fields_of(kind: Kind, value: object) -> list[str]:
    """Lists the keys that a mapping of this kind may have, in the order of the model."""
    model = _model(kind, value)
    return list(model.model_fields) if model else []


def members(kind: Kind) -> list[Kind]:
    """Takes a union apart; anything else is its own only member."""
    if isinstance(kind, FieldInfo):
        return members(kind.annotation)
    if origin(kind) is Annotated:
        return members(get_args(kind)[0])
    if origin(kind) in (Union, UnionType):
        return [member for part in get_args(kind) for member in members(part)]
    return [kind]


def origin(kind: Kind) -> Any:
    """Finds what an annotation in brackets was made of: `dict` for `dict[str, int]`, or None."""
    return get_origin(kind)


def literals(kind: Kind) -> list[object]:
    """Lists the values that a `Literal` allows."""
    return [v for m in members(kind) if origin(m) is Literal for v in get_args(m)]


def tags(kind: Kind) -> list[object]:
    """Lists the values of `type` that tell the models of a union apart."""
    models = _models(kind)
    return [tag for model in models for tag in _types(model)] if len(models) > 1 else []


def pattern_message(field: Kind) -> str:
    """Says in words what a text must look like; editors show the same words."""
    extra = field.json_schema_extra
    return str(extra["patternErrorMessage"])


def _step(kind: Kind, key: str | int, value: object) -> Kind:
    model = _model(kind, value)
    if model:
        return model.model_fields.get(str(key), Any)
    inner = [get_args(m)[-1] for m in members(kind) if origin(m) is dict]
    return inner[0] if inner else Any


def _child(value: Any, key: str | int) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return None


def _model(kind: Kind, value: object) -> type[BaseModel] | None:
    models = _models(kind)
    if len(models) > 1:
        tag = value.get("type") if isinstance(value, dict) else None
        models = [model for model in models if tag in _types(model)]
    return models[0] if models else None


def _models(kind: Kind) -> list[type[BaseModel]]:
    return [m for m in members(kind) if isinstance(m, type) and issubclass(m, BaseModel)]


def _types(model: type[BaseModel]) -> list[object]:
    return literals(model.model_fields["type"])
