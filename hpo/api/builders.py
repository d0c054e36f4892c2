"""A builder that is given as an object: found again in its module, or kept in this process."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

from hpo.api.sources import source_hash
from hpo.errors import BuilderError
from hpo.usercode import MAIN, HandedOver

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class FoundBuilder:
    """A builder as the study names it.

    Attributes:
        reference: `module:name`.
        handed: The object itself when no other process could import it.
    """

    reference: str
    handed: HandedOver | None = None

    @property
    def study_name(self) -> str:
        """What a study of this builder is called when nobody names it."""
        module, _, name = self.reference.partition(":")
        last = module.rpartition(".")[2]
        words = name if self.handed is not None or last == name else f"{last}-{name}"
        return words.lstrip("_") or "study"


def find_builder(build: object) -> FoundBuilder:
    """The builder for what a user gave: `module:name`, a function or a HyperModel.

    Raises:
        BuilderError: It is none of these.
    """
    if isinstance(build, str):
        return FoundBuilder(build)
    if _is_model(build):
        raise BuilderError(
            f"build is a model, a {type(build).__name__}; expected a function that builds one: "
            "def build(hp): ... return model"
        )
    reference = find_reference(build)
    if reference is not None:
        return FoundBuilder(reference)
    if not callable(getattr(build, "build", build)):
        raise BuilderError(
            "build must be a function, a HyperModel or text such as 'my_model:build', "
            f"received {type(build).__name__}"
        )
    reference = f"{MAIN}:{_name_of(build)}"
    return FoundBuilder(reference, HandedOver(reference, build, source_hash(build)))


def find_reference(thing: object) -> str | None:
    """`module:name` under which another process finds the very same object; None if there is none.

    A function inside a function has none, and neither has what a notebook or a script defines.
    """
    own = inspect.isclass(thing) or inspect.isfunction(thing)
    module_name = str((thing if own else type(thing)).__module__)
    module = sys.modules.get(module_name)
    if module_name == MAIN or getattr(module, "__file__", None) is None:
        return None
    names = [name for name, value in vars(module).items() if value is thing]
    found = [f"{module_name}:{name}" for name in names]
    return next(filter(_REFERENCE.fullmatch, found), None)


def _is_model(build: object) -> bool:
    # Nobody has a model of a Keras that is not imported.
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(build, keras.Model)


def _name_of(build: Any) -> str:
    name = getattr(build, "__name__", None) or type(build).__name__
    return re.sub(r"\W", "", name) or "build"
