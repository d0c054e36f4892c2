"""The user's own modules: found in the project folder and imported through this one function."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb, format_exception
from types import ModuleType
from typing import Any

from hpo.errors import UsageError

_OURS = Path(__file__).parent
_COLOUR = re.compile("\x1b" + r"\[\d*m")
# The module that a builder of a notebook or a script is said to be in.
MAIN = "__main__"


@dataclass(frozen=True)
class HandedOver:
    """A builder that exists in this process alone.

    Attributes:
        name: As a study file would say it; its module is `__main__`.
        source_hash: Of its source and of what it uses.
    """

    name: str
    target: Any
    source_hash: str


_handed_over: dict[str, HandedOver] = {}


@contextmanager
def handing_over(builder: HandedOver) -> Iterator[None]:
    """Inside, trainers that are threads of this process find the builder by its name."""
    _handed_over[builder.name] = builder
    try:
        yield
    finally:
        _handed_over.pop(builder.name, None)


def find_handed_over(name: str, failure: type[UsageError]) -> HandedOver | None:
    """The builder that was handed over under this name; None if a module has it.

    Raises:
        UsageError: Of the kind `failure`: it exists in another process alone.
    """
    if name not in _handed_over and name.startswith(f"{MAIN}:"):
        raise failure(
            f"{name.partition(':')[2]} was defined in a notebook or a script and exists there "
            "alone: call hpo.tune there again, or move it into a module and begin another study"
        )
    return _handed_over.get(name)


def import_user_module(name: str, folder: Path, failure: type[UsageError]) -> ModuleType:
    """Imports a module of the project folder.

    Raises:
        UsageError: Of the kind `failure`: it is not there, or importing it raised.
    """
    folder = folder.resolve()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise failure(_no_module(name, folder)) from None
        raise failure(f"importing {name} failed with {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An error that came out of the user's code: kind, message and the deepest line of that code.

    Keras colours its messages for a terminal; the colours are taken out.
    """
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_users(frame.filename)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = _COLOUR.sub("", str(error))
    # Keras's words.
    if "URL fetch failure" in text:
        place += (
            "; it downloads a file, pretrained weights perhaps, which can't be reached from here"
        )
    kind = type(error).__name__
    return f"{kind}: {text}{place}" if text else f"{kind}:{place}" if place else kind


def on_one_line(text: str) -> str:
    """For logs and tables: lines are joined, other control characters are seen as escapes."""
    joined = " ".join(text.split())
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in joined)


def traceback_of(error: BaseException) -> str:
    """From the first line of the user's code on, where there is one."""
    first = trace = error.__traceback__
    while trace is not None and not _is_users(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(format_exception(type(error), error, trace or first))


def hint(name: str, known: list[str]) -> str:
    """A question after the nearest known name, or nothing."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _is_users(filename: str) -> bool:
    file = Path(filename)
    installed = "site-packages" in file.parts or file.is_relative_to(Path(inspect.__file__).parent)
    return not (installed or file.is_relative_to(_OURS) or filename.startswith("<"))


def _no_module(name: str, folder: Path) -> str:
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    siblings = [path.stem for path in file.parent.glob("*.py")]
    return (
        f"there is no module {name!r} in the project folder {folder}; expected the file "
        f"{file.relative_to(folder)} there{hint(file.stem, siblings)} "
        "(choose another folder with --project, or project= in Python)"
    )
