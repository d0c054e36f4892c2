"""YAML 1.2 as plain values, with the place of every key and value.

ruamel.yaml scans, parses and composes; what a scalar means is decided here by the core schema of
YAML 1.2 (section 10.3.2 of the specification), whatever version the file claims. So `no`,
`2020-01-01` and `1_000` are text, `1e-5` is a number, and a key is always the text as written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver

from hpo.errors import Problem
from hpo.spec.messages import Path, dotted, received

Place = tuple[int, int]

# Aliases can make a short file hold billions of values.
_MOST_VALUES = 20_000
_DEEPEST = 100
_TAG = "tag:yaml.org,2002:"
_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": _FLOAT,
}
_FIRST = {
    "null": ["~", "n", "N", ""],
    "bool": list("tTfF"),
    "int": list("-+0123456789"),
    "float": list("-+.0123456789"),
}


@dataclass
class Document:
    """The values of a file and where they stand; `values` is None where nothing could be read.

    `problems` are those of the YAML itself; `unread` are the paths that hold no real value because
    of them.
    """

    values: Any = None
    problems: list[Problem] = field(default_factory=list)
    unread: set[Path] = field(default_factory=set)
    _keys: dict[Path, Place] = field(default_factory=dict)
    _values: dict[Path, Place] = field(default_factory=dict)

    def add_place(self, path: Path, key: Place, value: Place) -> None:
        """Notes a value; one that begins on another line than its key is found at the key."""
        self._keys[path] = key
        self._values[path] = value if value[0] == key[0] else key

    def place(self, path: Path, *, at_key: bool = False) -> Place:
        """Line and column, from 1, of a value or its key; of the nearest parent if it is absent."""
        while path and path not in self._values:
            path, at_key = path[:-1], False
        places = self._keys if at_key and path in self._keys else self._values
        return places.get(path, (0, 0))


def read(text: str) -> Document:
    """Reads one YAML document; what is wrong with it stands in the result."""
    try:
        root = _yaml().compose(text)
    except YAMLError as error:
        return Document(problems=[_syntax_problem(error, text)])
    if root is None:
        return Document(problems=[Problem("the file is empty, expected a study", "", 1, 1)])
    try:
        return _Reader().read(root)
    except _TooManyValuesError:
        message = f"more than {_MOST_VALUES} values, counting aliases: too many to read"
        return Document(problems=[Problem(message, "", 1, 1)])


def write(values: dict[str, Any]) -> str:
    """Writes values so that `read` finds equal ones; keys stay in order."""
    yaml: Any = _yaml()
    yaml.Representer = _Representer
    yaml.default_flow_style = None  # a mapping or list of plain values goes on one line
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 1_000_000  # ruamel.yaml loses blanks and line breaks where it folds a text
    stream = StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


class OneLine(dict[str, Any]):
    """A mapping that is written on one line whatever it holds."""


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _CoreResolver
    yaml.max_depth = _DEEPEST
    yaml.composer.warn_double_anchors = False
    return yaml


class _CoreResolver(BaseResolver):
    def __init__(self, version: Any = None, loader: Any = None) -> None:
        super().__init__(loader)
        self._loader_version = version

    @property
    def processing_version(self) -> tuple[int, int]:
        return (1, 2)


for _kind, _pattern in _PATTERNS.items():
    _CoreResolver.add_implicit_resolver_base(
        _TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _FIRST[_kind]
    )


class _TooManyValuesError(Exception):
    pass


class _Reader:
    """Turns nodes into values, once, and notes on the way where they stand."""

    def __init__(self) -> None:
        self._document = Document()
        self._open: list[Node] = []
        self._count = 0

    def read(self, root: Node) -> Document:
        self._document.add_place((), _place(root), _place(root))
        self._document.values = self._value(root, ())
        return self._document

    def _value(self, node: Node, path: Path) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise _TooManyValuesError
        if any(node is parent for parent in self._open):
            return self._refuse(node, path, f"the alias *{node.anchor} holds itself")
        self._open.append(node)
        try:
            return self._read(node, path)
        except ValueError as error:
            return self._refuse(node, path, str(error))
        finally:
            self._open.pop()

    def _read(self, node: Node, path: Path) -> Any:
        tag = str(node.tag).removeprefix(_TAG)
        if isinstance(node, MappingNode) and tag == "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and tag == "seq":
            return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and tag in ("str", *_PATTERNS):
            return _scalar(tag, node.value)
        raise ValueError(f'the tag "{tag}" is not understood here: leave it out')

    def _item(self, node: Node, path: Path) -> Any:
        self._document.add_place(path, _place(node), _place(node))
        return self._value(node, path)

    def _mapping(self, mapping: MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, node in mapping.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse(key_node, path, "expected a plain key, received a list or a mapping")
                continue
            key, here = key_node.value, _place(key_node)
            if key in values:
                first = self._document.place((*path, key), at_key=True)
                message = f'the key "{key}" stands twice, first in line {first[0]}'
                self._problem(message, (*path, key), here)
            elif key == "<<" and key_node.style is None:
                message = "merge keys are not part of YAML 1.2: write the keys out"
                self._problem(message, (*path, key), here)
            else:
                self._document.add_place((*path, key), here, _place(node))
                values[key] = self._value(node, (*path, key))
        return values

    def _refuse(self, node: Node, path: Path, message: str) -> None:
        self._document.unread.add(path)
        self._problem(message, path, _place(node))

    def _problem(self, message: str, path: Path, place: Place) -> None:
        self._document.problems.append(Problem(message, dotted(path), *place))


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _scalar(kind: str, text: str) -> object:
    """Reads the text of a scalar; its kind is resolved from the text or set by a tag."""
    if kind == "str":
        return text
    if not re.fullmatch(_PATTERNS[kind], text):
        raise ValueError(f"the tag !!{kind} does not fit {received(text)}")
    if kind == "int":
        return _int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text.lower() == "true" if kind == "bool" else None


def _int(text: str) -> int:
    try:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    except ValueError:  # Python refuses to read thousands of digits
        raise ValueError(f"a number of {len(text)} digits is too long") from None


class _Representer(SafeRepresenter):
    def text(self, text: str) -> Any:
        # ruamel.yaml writes some texts plain that it can't read back, and YAML 1.1 takes more
        # words for true and false: only what is clearly a word goes without quotes.
        plain = _WORD.fullmatch(text) and text.lower() not in _NO_WORDS
        return self.represent_scalar(f"{_TAG}str", text, style=None if plain else '"')

    def on_one_line(self, values: OneLine) -> Any:
        return self.represent_mapping(f"{_TAG}map", values.items(), flow_style=True)


_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_NO_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_Representer.add_representer(str, _Representer.text)
_Representer.add_representer(OneLine, _Representer.on_one_line)


def _syntax_problem(error: YAMLError, text: str) -> Problem:
    if isinstance(error, ReaderError):
        before = text[: error.position].splitlines() or [""]
        message = f"the character U+{error.character:04X} can't stand in a YAML file"
        return Problem(message, "", len(before), len(before[-1]) + 1)
    if not isinstance(error, MarkedYAMLError):
        return Problem(f"not valid YAML: {error}")
    mark = error.problem_mark or error.context_mark
    reasons = [reason for reason in (error.context, error.problem) if reason]
    message = f"not valid YAML: {', '.join(reasons)}"
    message = message.replace("'<stream end>'", "the end of the file")
    for reason, words in _REASONS.items():
        if reason in message:
            message = words
    return Problem(message, "", mark.line + 1, mark.column + 1)


_REASONS = {
    "but found another document": "expected one document, received a second one",
    "maximum depth": f"nested deeper than {_DEEPEST} levels",
    "found undefined alias": "not valid YAML: an alias (*name) without its anchor (&name)",
    "'\\t'": "not valid YAML: a tab can't indent, use blanks",
    "mapping values are not allowed here": "not valid YAML: a key and a colon can't stand here; "
    "check the indentation and the lines above",
}
