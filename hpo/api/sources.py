"""A hash over the source of a builder that stands in no module file.

Beside its own source it covers what the builder uses of the same notebook: functions, classes and
plain values, also those that a function around it has left to it. What modules hold is left out.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def source_hash(builder: Any) -> str:
    """16 hexadecimal digits; equal in every process that has the same source."""
    home = _home(builder)
    text = "\n".join(_Walk(home).pieces(builder))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _home(thing: Any) -> Any:
    if isinstance(thing, functools.partial):
        return _home(thing.func)
    return getattr(thing, "__module__", None)


class _Walk:
    """Goes through what a builder is made of, each thing once."""

    def __init__(self, home: Any) -> None:
        self._home = home
        self._seen: set[int] = set()
        self._around: list[Any] = []

    def pieces(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, _PLAIN):
            yield repr(thing)
        elif isinstance(thing, Mapping | list | tuple):
            yield from self._container(thing)
        elif isinstance(thing, set | frozenset):
            yield from sorted(map(repr, thing))
        elif id(thing) not in self._seen:
            self._seen.add(id(thing))
            yield from self._object(thing)

    def _container(self, thing: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[str]:
        if any(outer is thing for outer in self._around):
            return
        self._around.append(thing)
        items = thing.items() if isinstance(thing, Mapping) else enumerate(thing)
        yield from self._named({repr(key): value for key, value in items})
        self._around.pop()

    def _named(self, values: Mapping[str, Any]) -> Iterator[str]:
        for name in sorted(values):
            yield f"{name} ="
            yield from self.pieces(values[name])

    def _object(self, thing: Any) -> Iterator[str]:
        if isinstance(thing, functools.partial):
            yield from self.pieces((thing.func, thing.args, thing.keywords))
        elif isinstance(thing, MethodType):
            yield from self.pieces((thing.__self__, thing.__func__))
        elif isinstance(thing, staticmethod | classmethod):
            yield from self.pieces(thing.__func__)
        elif isinstance(thing, property):
            yield from self.pieces((thing.fget, thing.fset))
        elif not self._is_near(thing):
            yield f"{_home(thing)}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
        elif isinstance(thing, FunctionType):
            yield from self._function(thing)
        elif inspect.isclass(thing):
            yield from self._class(thing)
        else:
            yield from self.pieces(type(thing))
            # Not methods: KerasTuner sets wrapped ones on each instance.
            values = vars(thing) if hasattr(thing, "__dict__") else {}
            yield from self._named(
                {name: value for name, value in values.items() if not inspect.ismethod(value)}
            )

    def _is_near(self, thing: Any) -> bool:
        return not inspect.ismodule(thing) and _home(thing) == self._home

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield _text(function)
        yield from self.pieces((function.__defaults__, function.__kwdefaults__))
        code = function.__code__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            # An empty cell: the name around it has no value yet.
            with contextlib.suppress(ValueError):
                yield from self._named({name: cell.cell_contents})
        names = set(_global_names(code))
        known = {name: function.__globals__[name] for name in names & set(function.__globals__)}
        yield from self._named(known)

    def _class(self, kind: type) -> Iterator[str]:
        yield kind.__qualname__
        yield from self.pieces(kind.__bases__)
        own = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
        if "__init__" in vars(kind):
            own["__init__"] = vars(kind)["__init__"]
        yield from self._named(own)


def _text(function: FunctionType) -> str:
    # A lambda's source is the whole statement that it stands in, a call of `tune` perhaps.
    if function.__name__ != "<lambda>":
        try:
            return inspect.cleandoc(inspect.getsource(function.__code__))
        except (OSError, TypeError):
            pass
    return "\n".join(_code(function.__code__))


def _code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        elif isinstance(constant, frozenset):
            # In the same order in every process.
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)


def _global_names(code: CodeType) -> Iterator[str]:
    yield from (
        str(step.argval)
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    )
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
