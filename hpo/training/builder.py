"""The user's model builder: found, loaded and called through this module alone."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from hpo.data import DataSignature
from hpo.errors import BuilderError
from hpo.spec.models import ModelSpec


@dataclass(frozen=True)
class Builder:
    """A model builder, ready to be called.

    Attributes:
        name: As the study file says it.
        source_hash: Of the module that it was loaded from.
    """

    name: str
    source_hash: str
    _build: Callable[[Any], Any]

    def build(self, hp: Any) -> keras.Model:
        """A new model for the values of `hp`.

        Raises:
            BuilderError: The builder returned something else than a model.
        """
        model = self._build(hp)
        if not isinstance(model, keras.Model):
            raise BuilderError(
                f"the builder {self.name} must return a keras.Model, "
                f"received {type(model).__name__}; does it end with a return statement?"
            )
        return model


def load_builder(spec: ModelSpec, signature: DataSignature, project: Path) -> Builder:
    """The builder that the study file names: a function, a HyperModel class or an instance.

    A function takes `hp` first, a class's `build` takes `hp`; their other parameters are filled by
    name from `model.args` and from what the data is (`input_shape`, `num_outputs`, ...).

    Raises:
        BuilderError: It is not there, can't be imported, or wants parameters that nobody has.
    """
    module_name, _, name = spec.builder.partition(":")
    module = _import(module_name, project)
    target = getattr(module, name, None)
    if target is None:
        near = get_close_matches(name, dir(module), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BuilderError(f"the module {module_name} has no {name!r}{hint}")
    offered = _offered(spec, signature)
    build, accepted = _bind(target, spec.builder, offered)
    _check_args(spec, accepted)
    return Builder(spec.builder, _source_hash(module), build)


def _import(name: str, project: Path) -> ModuleType:
    folder = str(project.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise BuilderError(f"importing {name} failed: {error}") from error
        raise BuilderError(
            f"there is no module {name!r} in the project folder {folder}; expected the file "
            f"{name.replace('.', '/')}.py there (choose another folder with --project)"
        ) from None
    except Exception as error:
        raise BuilderError(
            f"importing {name} failed with {type(error).__name__}: {error}"
        ) from error


def _offered(spec: ModelSpec, signature: DataSignature) -> dict[str, Any]:
    facts = {
        "input_shape": signature.input_shape,
        "num_classes": signature.num_classes,
        "num_outputs": signature.num_outputs,
        "class_names": signature.class_names,
        "task": signature.task,
    }
    return facts | spec.args


def _bind(
    target: Any, name: str, offered: Mapping[str, Any]
) -> tuple[Callable[[Any], Any], set[str]]:
    """A callable of `hp` alone, and the names of the parameters that it could use."""
    accepted: set[str] = set()
    if inspect.isclass(target):
        kwargs = _pick(target, name, offered, skip=0)
        accepted |= _names(target)
        target = target(**kwargs)
    build = getattr(target, "build", target)
    if not callable(build):
        raise BuilderError(f"{name} must be a function or a HyperModel, received {target!r}")
    kwargs = _pick(build, name, offered, skip=1)
    return lambda hp: build(hp, **kwargs), accepted | _names(build)


def _pick(
    function: Callable[..., Any], name: str, offered: Mapping[str, Any], skip: int
) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in offered
    ]
    if missing:
        raise BuilderError(
            f"the builder {name} wants {', '.join(missing)}, which is neither in model.args nor "
            f"known of the data; known: {', '.join(sorted(offered))}"
        )
    return {p.name: offered[p.name] for p in parameters if p.name in offered}


def _names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def _check_args(spec: ModelSpec, accepted: set[str]) -> None:
    unknown = sorted(set(spec.args) - accepted)
    if unknown:
        raise BuilderError(
            f"model.args: the builder {spec.builder} takes no {', '.join(unknown)}; "
            f"it takes: {', '.join(sorted(accepted - {'hp', 'self'})) or 'nothing'}"
        )


def _source_hash(module: ModuleType) -> str:
    file = inspect.getsourcefile(module)
    content = Path(file).read_bytes() if file else module.__name__.encode()
    return hashlib.sha256(content).hexdigest()[:16]
