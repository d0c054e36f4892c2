"""Checks across the entries of a study file that need no Keras and no builder.

A name in `repeat:` or `when:` that is not in `space:` passes: the builder may declare it, and only
whoever has called the builder can tell. Whoever has, asks for `trainer_findings` too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from pydantic import ValidationError

from hpo.spec.messages import Finding, Path, any_of, explain, not_among, received
from hpo.spec.parameters import (
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
)
from hpo.spec.training import TRAINING_PARAMETERS, CosineSchedule, Training, training_field

Space = Mapping[str, Parameter | Scalar]

# Optuna's column holds 512 characters; this leaves room for an index and a qualifier.
_LONGEST_NAME = 400
_SAMPLED_AS: dict[object, list[str]] = {int: ["int"], float: ["float", "int"]}


def study_findings(
    training: Training | None, space: Space, unread: Collection[str] = ()
) -> list[Finding]:
    """Finds what contradicts itself, as far as the file could be read.

    Where an entry is wrong in itself, `training` is None or the parameter's name is in `unread`
    and not in `space`. Paths begin at the top of the file.
    """
    names = [*space, *unread]
    sampled = {name: entry for name, entry in space.items() if isinstance(entry, Parameter)}
    return list(
        chain(
            _bad_names(names),
            _names_taken(names, sampled),
            _repeats(sampled, space),
            _conditions(sampled, space, unread),
            _cycles(sampled),
            _warmup(training, space) if training else (),
        )
    )


def _bad_names(names: list[str]) -> Iterator[Finding]:
    for name in names:
        if name != name.strip() or not name or not name.isprintable():
            message = "expected a name of visible characters without blanks around it"
            yield _at_name(name, f"{message}, received {received(name)}")
        elif len(name) > _LONGEST_NAME:
            message = f"expected a name of at most {_LONGEST_NAME} characters"
            yield _at_name(name, f"{message}, received one of {len(name)}")


def _names_taken(names: list[str], sampled: Mapping[str, Parameter]) -> Iterator[Finding]:
    repeated = {name for name, entry in sampled.items() if entry.repeat}
    for name in names:
        stem, _, index = name.rpartition("_")
        if stem in repeated and index.isdecimal():
            yield _at_name(name, f'"{name}" is a name that "{stem}" repeats into: rename one')


def trainer_findings(space: Space, own: Collection[str]) -> list[Finding]:
    """Finds entries under the trainer's own names that `training:` would not allow.

    Only whoever has called the builder knows which of these names are its `own`, and may have
    other values.
    """
    names = [name for name in TRAINING_PARAMETERS if name not in own]
    entries = [(name, space[name]) for name in names if name in space]
    conditions = [
        (("space", name, "when", parent), parent, wanted)
        for name, entry in space.items()
        if isinstance(entry, Parameter)
        for parent, wanted in (entry.when or {}).items()
        if parent in names and parent not in space
    ]
    return list(
        chain(
            *(_trainer_entry(name, entry) for name, entry in entries),
            *(
                _trainer_value(parent, value, place)
                for path, parent, wanted in conditions
                for place, value in _each(path, wanted)
            ),
        )
    )


def _trainer_entry(name: str, entry: Parameter | Scalar) -> Iterator[Finding]:
    if isinstance(entry, Parameter):
        yield from _trainer_parameter(name, entry)
    else:
        yield from _trainer_value(name, entry, ("space", name))


def _trainer_parameter(name: str, entry: Parameter) -> Iterator[Finding]:
    if entry.repeat:
        message = f"the trainer asks for one {name}: it can't be repeated"
        yield Finding(("space", name, "repeat"), message)
    section, key = training_field(name)
    kinds = _SAMPLED_AS.get(section.model_fields[key].annotation, [])
    if entry.type not in [*kinds, "categorical"]:
        message = f"expected type {any_of([*kinds, 'categorical'])} for {name}"
        yield Finding(("space", name, "type"), f"{message}, received {entry.type}")
    elif isinstance(entry, CategoricalParameter):
        for index, choice in enumerate(entry.choices):
            yield from _trainer_value(name, choice, ("space", name, "choices", index))
    elif isinstance(entry, FloatParameter | IntParameter):
        yield from _trainer_value(name, entry.low, ("space", name, "low"))
        yield from _trainer_value(name, entry.high, ("space", name, "high"))


def _trainer_value(name: str, value: Scalar, path: Path) -> Iterator[Finding]:
    """Holds a value to what `training:` allows under the same name."""
    section, key = training_field(name)
    values = {key: value}
    try:
        section.model_validate(values)
    except ValidationError as error:
        yield from (Finding(path, f.message) for f in explain(error, values, section))


def _repeats(sampled: Mapping[str, Parameter], space: Space) -> Iterator[Finding]:
    for name, entry in sampled.items():
        message = ""
        if entry.repeat == name:
            message = "a parameter can't be repeated by its own value"
        elif entry.repeat is not None and entry.repeat in space:
            message = _why_no_count(space[entry.repeat])
        if message:
            yield Finding(("space", name, "repeat"), message)


def _why_no_count(entry: Parameter | Scalar) -> str:
    expected = "expected the name of an int parameter or of a fixed whole number"
    if isinstance(entry, IntParameter):
        if entry.repeat:
            return f"{expected}, received a parameter that is itself repeated"
        entry = entry.low
    if isinstance(entry, Parameter):
        return f"{expected}, received the name of a {entry.type} parameter"
    if isinstance(entry, bool) or not isinstance(entry, int):
        return f"{expected}, received a name that is fixed to {received(entry)}"
    return "" if entry >= 0 else f"{expected} of at least 0, received one that can be {entry}"


def _conditions(
    sampled: Mapping[str, Parameter], space: Space, unread: Collection[str]
) -> Iterator[Finding]:
    for name, entry in sampled.items():
        for parent, wanted in (entry.when or {}).items():
            path = ("space", name, "when", parent)
            if parent == name:
                yield Finding(path, "a parameter can't depend on its own value", at_key=True)
            elif parent in sampled and sampled[parent].repeat:
                message = f'"{parent}" is repeated: name one of its values, such as "{parent}_0"'
                yield Finding(path, message, at_key=True)
            elif wanted == []:
                yield Finding(path, "expected at least one value, received an empty list")
            elif parent not in unread:
                yield from _condition(path, parent, wanted, space)


def _condition(
    path: Path, parent: str, wanted: Scalar | list[Scalar], space: Space
) -> Iterator[Finding]:
    for place, value in _each(path, wanted) if parent in space else ():
        message = _why_never(value, space[parent])
        if message:
            yield Finding(place, f"{parent} never has this value: {message}")


def _each(path: Path, wanted: Scalar | list[Scalar]) -> list[tuple[Path, Scalar]]:
    """The values of a condition, each with its place."""
    if not isinstance(wanted, list):
        return [(path, wanted)]
    return [((*path, index), value) for index, value in enumerate(wanted)]


def _why_never(value: Scalar, entry: Parameter | Scalar) -> str:
    """Says why a sampled parameter can't take a value; a fixed one may wait for its sampling."""
    if isinstance(entry, BoolParameter):
        return "" if isinstance(value, bool) else not_among(value, (True, False))
    if isinstance(entry, CategoricalParameter):
        among = any(_equal(value, choice) for choice in entry.choices)
        return "" if among else not_among(value, entry.choices)
    if isinstance(entry, FloatParameter | IntParameter):
        return _why_outside(value, entry)
    return ""


def _equal(one: Scalar, other: Scalar) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _why_outside(value: Scalar, entry: FloatParameter | IntParameter) -> str:
    kinds = (int,) if isinstance(entry, IntParameter) else (int, float)
    if not isinstance(value, bool | str) and isinstance(value, kinds):
        inside = entry.low <= value <= entry.high
    else:
        inside = False
    noun = "a whole number" if isinstance(entry, IntParameter) else "a number"
    expected = f"expected {noun} from {entry.low} to {entry.high}"
    return "" if inside else f"{expected}, received {received(value)}"


def _cycles(sampled: Mapping[str, Parameter]) -> Iterator[Finding]:
    """Tells every circle of `repeat` and `when` once; what refers to itself is told elsewhere."""
    needs = {
        name: {parent for parent in (entry.repeat, *(entry.when or ())) if parent in sampled}
        - {name}
        for name, entry in sampled.items()
    }
    while circle := _circle(needs):
        start = circle.index(min(circle, key=list(sampled).index))
        names = [*circle[start:], *circle[: start + 1]]
        name, parent = names[:2]
        needs[name].discard(parent)
        key = ("repeat",) if sampled[name].repeat == parent else ("when", parent)
        yield Finding(("space", name, *key), f"goes in a circle: {' needs '.join(names)}")


def _circle(needs: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        nodes: list[str] = error.args[1]
        return nodes[:0:-1]
    return []


def _warmup(training: Training, space: Space) -> Iterator[Finding]:
    schedule = training.schedule
    epochs = _fewest_epochs(space.get("epochs", training.epochs))
    if isinstance(schedule, CosineSchedule) and schedule.warmup >= epochs:
        message = f"warmup must be below the number of epochs ({epochs})"
        path = ("training", "schedule", "warmup")
        yield Finding(path, f"{message}, received {schedule.warmup}")


def _fewest_epochs(entry: Parameter | Scalar) -> float:
    if isinstance(entry, IntParameter):
        return entry.low
    values = entry.choices if isinstance(entry, CategoricalParameter) else (entry,)
    return min((v for v in values if isinstance(v, int)), default=math.inf)


def _at_name(name: str, message: str) -> Finding:
    return Finding(("space", name), message, at_key=True)
