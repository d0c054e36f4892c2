"""What is wrong with a value, in plain words: pydantic's errors turned into findings.

A union makes pydantic report one error per member and puts the members' names into the place. Here
every value gets one finding, whose path holds only keys that stand, or should stand, in the file.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpo.spec.shape import (
    Kind,
    fields_of,
    kind_at,
    literals,
    members,
    origin,
    pattern_message,
    tags,
)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `path` leads there from the top of the file.

    `at_key` tells that the last key itself is wrong, not the value behind it.
    """

    path: Path
    message: str
    at_key: bool = False


class FindingsError(ValueError):
    """Carries findings out of a validator; their paths begin at the validated value."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f"{dotted(f.path)}: {f.message}" for f in findings))


def explain(error: ValidationError, values: object, root: type[BaseModel]) -> list[Finding]:
    """Says what pydantic found wrong when it read `values` as `root`, once for each value."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path_in(values, detail), []).append(detail)
    meant = _meant_keys(by_path, values, root)
    findings = []
    for path, details in by_path.items():
        if details[0]["type"] == "extra_forbidden":
            known = fields_of(kind_at(root, path[:-1], values), _at(values, path[:-1]))
            findings.append(_unknown_key(path, known, meant[path]))
        elif path not in meant.values() and not _is_shadowed(path, details, by_path):
            findings += _findings(path, details, kind_at(root, path, values))
    return findings


def dotted(path: Path) -> str:
    """Writes a path as `space.optimizer.choices[1]`, for people: long names are cut."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{_named(key)}" for key in path]
    return "".join(parts).removeprefix(".")


def received(value: object) -> str:
    """Names a value that stands in a file, with its type where that helps."""
    if isinstance(value, str):
        return f"the text {_quoted(value)}"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return "nothing" if value is None else _shown(value)


def not_among(value: object, choices: Sequence[object]) -> str:
    """Says that a value is none of the choices, and which choice looks like it."""
    names = [_shown(choice) for choice in choices]
    return _mismatch(value, names, names)


def any_of(phrases: Iterable[str]) -> str:
    """Joins different phrases as `a, b or c`."""
    *rest, last = dict.fromkeys(phrases)
    return f"{', '.join(rest)} or {last}" if rest else last


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Finds the known name that a person who wrote `word` most likely meant."""
    if not isinstance(word, str):
        return None
    lower = {name.lower(): name for name in known}
    word = word.lower()
    close = difflib.get_close_matches(word, lower, n=1)
    if not close and len(word) > 1:
        close = [name for name in lower if name.startswith(word) or word.startswith(name)]
    return lower[close[0]] if close else None


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)


def _named(key: str) -> str:
    return key if re.fullmatch(r"[\w-]{1,60}", key) else _quoted(key)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at(values: Any, path: Path) -> Any:
    for key in path:
        values = values[key]
    return values


def _path_in(values: Any, detail: ErrorDetails) -> Path:
    """Leaves out of pydantic's place what is no key of the file: the names of union members."""
    path: list[str | int] = []
    for part in detail["loc"]:
        in_list = isinstance(values, list) and isinstance(part, int)
        if in_list or (isinstance(values, dict) and part in values):
            values = values[part]
            path.append(part)
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    return tuple(path)


_KINDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_SCALARS = {"bool_type", "int_type", "float_type", "string_type"}
_LIMITS = {
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "finite_number": "a finite number",
    "too_short": "at least {min_length} entry",
}


def _is_of_wrong_kind(detail: ErrorDetails) -> bool:
    return detail["type"] in _KINDS or detail["type"] == "literal_error"


def _is_shadowed(
    path: Path, details: list[ErrorDetails], others: dict[Path, list[ErrorDetails]]
) -> bool:
    """True if one member of a union took the value and complains about something inside it."""
    inside = any(len(p) > len(path) and p[: len(path)] == path for p in others)
    return inside and all(_is_of_wrong_kind(detail) for detail in details)


def _findings(path: Path, details: list[ErrorDetails], expected: Kind) -> list[Finding]:
    definite = [detail for detail in details if not _is_of_wrong_kind(detail)]
    if not definite:
        return [Finding(path, _wrong_kind(details))]
    detail = definite[0]
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, FindingsError):
        return [Finding((*path, *f.path), f.message, f.at_key) for f in cause.findings]
    if detail["type"].startswith("union_tag"):
        path = (*path, "type")
    return [Finding(path, _definite(detail, expected))]


def _wrong_kind(details: list[ErrorDetails]) -> str:
    value = details[0]["input"]
    kinds = {detail["type"] for detail in details}
    names = [_shown(v) for d in details if d["type"] == "literal_error" for v in _literals(d)]
    phrases: list[str] = []
    for detail in details:
        if detail["type"] == "literal_error":
            phrases += names
        elif detail["type"] in _SCALARS and kinds >= _SCALARS:
            phrases.append("a plain value")
        else:
            phrases.append(_KINDS[detail["type"]])
    return _mismatch(value, phrases, names)


def _mismatch(value: object, phrases: Iterable[str], names: Iterable[str]) -> str:
    near = nearest(value, names)
    hint = f', did you mean "{near}"?' if near else ""
    return f"expected {any_of(phrases)}, received {received(value)}{hint}"


def _literals(detail: ErrorDetails) -> list[object]:
    names = detail["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return [ast.literal_eval(name) for name in names]


def _definite(detail: ErrorDetails, expected: Kind) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return f"missing, expected {_in_words(expected)}"
    if kind == "union_tag_not_found":
        return f"missing, expected {any_of(map(_shown, tags(expected)))}"
    if kind == "union_tag_invalid":
        return not_among(value["type"], tags(expected))
    if kind in _LIMITS:
        message = "expected " + _LIMITS[kind].format(**context)
    elif kind == "string_pattern_mismatch":
        message = pattern_message(expected)
    else:
        message = str(context.get("error", detail["msg"]))
    told = "received" in message or not message.startswith("expected")
    return message if told else f"{message}, received {received(value)}"


def _in_words(expected: Kind) -> str:
    """Says what a missing value should be."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    names |= {tuple: "a list", list: "a list"}
    if literals(expected):
        return any_of(map(_shown, literals(expected)))
    return any_of(names.get(origin(m) or m, "a mapping") for m in members(expected))


def _meant_keys(
    by_path: dict[Path, list[ErrorDetails]], values: object, root: type[BaseModel]
) -> dict[Path, Path | None]:
    """Maps the path of each unknown key to the path that was most likely meant."""
    meant: dict[Path, Path | None] = {}
    for path, details in by_path.items():
        if details[0]["type"] == "extra_forbidden":
            *parent, key = path
            mapping = _at(values, path[:-1])
            known = fields_of(kind_at(root, path[:-1], values), mapping)
            near = nearest(key, [name for name in known if name not in mapping])
            meant[path] = (*parent, near) if near else None
    return meant


def _unknown_key(path: Path, known: Sequence[str], meant: Path | None) -> Finding:
    hint = (
        f', did you mean "{meant[-1]}"?' if meant else f"; known here: {', '.join(sorted(known))}"
    )
    return Finding(path, f"unknown key {_quoted(str(path[-1]))}{hint}", at_key=True)
