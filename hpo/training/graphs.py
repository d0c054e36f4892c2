"""Traced graphs as files: what one trainer of a machine has traced, the others need not trace.

Tracing is slow because every operation of a graph goes through Python. A traced graph is a list of
function definitions for TensorFlow's runtime and the tensors that it reads besides its argument.
Another process that has built the same model has these tensors too, so it needs the definitions
only, and takes them in within milliseconds. The trainer that has traced runs them as well: Python's
copy of a graph, megabytes of objects, can go.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.python.eager import context

_loaded = itertools.count()


@dataclass(frozen=True)
class GraphFolder:
    """A folder that the trainers of one machine share.

    Attributes:
        study: All that a study's graphs depend on beside a model's structure.
    """

    path: Path
    study: str

    def of_structure(self, structure: str, numbers: Sequence[Any]) -> GraphFiles:
        """The graphs of models of this structure; `numbers` are the variables in them."""
        digest = hashlib.sha256(f"{self.study}\n{structure}".encode()).hexdigest()
        return GraphFiles(self.path / digest, [number.handle for number in numbers])


@dataclass(frozen=True)
class GraphFiles:
    """The graphs of one structure, a file each.

    Attributes:
        held: Tensors that these graphs may read, whatever they do.
    """

    folder: Path
    held: Sequence[Any]

    def graph(
        self, name: str, held: Sequence[Any], trace: Callable[[], Any]
    ) -> Callable[[Any], dict[str, Any]]:
        """A graph from its file, or else traced and left there for others.

        Args:
            held: More tensors that it may read; equal models have equal ones in equal places.
            trace: Makes the concrete function of one argument, whose results are tensors by name.
        """
        tensors = [*self.held, *held]
        path = self.folder / name
        written = _read(path)
        if written is None:
            traced = trace()
            written = _written(traced, tensors)
            if written is None:
                return traced  # type: ignore[no-any-return]
            # Without it the others trace for themselves.
            with contextlib.suppress(OSError):
                _write(path, *written)
        return LoadedGraph(*written, tensors)


@dataclass(frozen=True)
class _Header:
    """What a file says beside the definitions.

    Attributes:
        function: Name of the function to call.
        reads: Places of the tensors that it reads, in the order of its arguments.
        outputs: Names of its results.
    """

    function: str
    reads: list[int]
    outputs: list[str]


class LoadedGraph:
    """A graph that only TensorFlow's runtime knows."""

    def __init__(
        self, header: _Header, definitions: FunctionDefLibrary, tensors: Sequence[Any]
    ) -> None:
        names = _renamed(definitions)
        self._name = names[header.function].encode()
        self._reads = [tensors[place] for place in header.reads]
        self._outputs = header.outputs
        self._runtime = context.context()
        for definition in definitions.function:
            self._runtime.add_function_def(definition)
        weakref.finalize(self, _forget, self._runtime, list(names.values()))

    def __call__(self, argument: Any) -> dict[str, Any]:
        inputs = [argument, *self._reads]
        found = self._runtime.call_function(self._name, inputs, len(self._outputs))
        return dict(zip(self._outputs, found, strict=True))


def _forget(runtime: Any, names: list[str]) -> None:
    for name in names:
        runtime.remove_function(name)


def _written(traced: Any, tensors: Sequence[Any]) -> tuple[_Header, FunctionDefLibrary] | None:
    """None when it reads something that another process could not find."""
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    reads = [places.get(id(tensor)) for tensor in traced.captured_inputs]
    if None in reads:
        return None
    definitions = FunctionDefLibrary()
    definitions.CopyFrom(traced.graph.as_graph_def().library)
    definitions.function.append(traced.function_def)
    # TensorFlow sorts the keys when it makes a list of results.
    outputs = sorted(traced.structured_outputs)
    header = _Header(
        traced.function_def.signature.name, [p for p in reads if p is not None], outputs
    )
    return header, definitions


def _renamed(definitions: FunctionDefLibrary) -> dict[str, str]:
    """Gives every function a name that no other has in this process; new names by old ones."""
    load = next(_loaded)
    names = {
        definition.signature.name: f"loaded_{load}_{index}"
        for index, definition in enumerate(definitions.function)
    }
    for definition in definitions.function:
        definition.signature.name = names[definition.signature.name]
        for node in definition.node_def:
            node.op = names.get(node.op, node.op)
            for value in node.attr.values():
                functions = [value.func] if value.HasField("func") else value.list.func
                for function in functions:
                    function.name = names.get(function.name, function.name)
    return names


def _read(path: Path) -> tuple[_Header, FunctionDefLibrary] | None:
    try:
        header, _, definitions = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return _Header(**json.loads(header)), FunctionDefLibrary.FromString(definitions)


def _write(path: Path, header: _Header, definitions: FunctionDefLibrary) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    content = json.dumps(asdict(header)).encode() + b"\n" + definitions.SerializeToString()
    unfinished.write_bytes(content)
    # Whoever reads it reads all of it.
    unfinished.replace(path)
