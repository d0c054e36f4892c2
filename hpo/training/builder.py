"""The user's model builder: found, loaded and called through this module alone."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

import keras
import keras_tuner

from hpo.data import DataSignature
from hpo.errors import BuilderError
from hpo.spec.models import ModelSpec
from hpo.usercode import find_handed_over

_OURS = Path(__file__).parents[1]
_COLOUR = re.compile("\x1b" + r"\[\d*m")


@dataclass(frozen=True)
class Builder:
    """A model builder, ready to be called.

    Attributes:
        name: As the study file says it.
        source_hash: Of the module that the study file names and of the one that defines the
            builder; not of what these import.
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
    handed = find_handed_over(spec.builder, BuilderError)
    if handed is not None:
        build = _bind(handed.target, spec, _facts(signature))
        return Builder(spec.builder, handed.source_hash, build)
    module_name, _, name = spec.builder.partition(":")
    module = _import(module_name, project.resolve())
    target = getattr(module, name, None)
    if target is None:
        raise BuilderError(f"the module {module_name} has no {name!r}{_hint(name, dir(module))}")
    build = _bind(target, spec, _facts(signature))
    return Builder(spec.builder, _source_hash(module, target), build)


def describe(error: BaseException) -> str:
    """An error that came out of the user's code: kind, message and the deepest line of that code.

    Keras colours its messages for a terminal; the colours are taken out.
    """
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_users(frame.filename)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_COLOUR.sub('', str(error))}{place}"


def _is_users(filename: str) -> bool:
    file = Path(filename)
    installed = "site-packages" in file.parts or file.is_relative_to(Path(inspect.__file__).parent)
    return not (installed or file.is_relative_to(_OURS) or filename.startswith("<"))


def _import(name: str, folder: Path) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise BuilderError(_no_module(name, folder)) from None
        raise BuilderError(f"importing {name} failed with {describe(error)}") from error


def _no_module(name: str, folder: Path) -> str:
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    siblings = [path.stem for path in file.parent.glob("*.py")]
    return (
        f"there is no module {name!r} in the project folder {folder}; expected the file "
        f"{file.relative_to(folder)} there{_hint(file.stem, siblings)} "
        "(choose another folder with --project)"
    )


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _facts(signature: DataSignature) -> dict[str, Any]:
    return {
        "input_shape": signature.input_shape,
        "num_classes": signature.num_classes,
        "num_outputs": signature.num_outputs,
        "class_names": signature.class_names,
        "task": signature.task,
        "vocabulary_sizes": signature.vocabulary_sizes,
    }


def _bind(target: Any, spec: ModelSpec, facts: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A callable of `hp` alone."""
    accepted: set[str] = set()
    if inspect.isclass(target):
        if issubclass(target, keras.Model):
            raise BuilderError(f"{spec.builder} is a model; expected a function that returns one")
        kwargs = _pick(target, spec, facts, accepted)
        target = _constructed(target, spec.builder, kwargs)
    if not callable(getattr(target, "build", target)):
        raise BuilderError(
            f"{spec.builder} must be a function or a HyperModel, received {type(target).__name__}"
        )
    _refuse_own_fit(target, spec.builder)
    kwargs = _pick(_declared_build(target), spec, facts, accepted, skip=1)
    _check_args(spec, accepted)
    build = getattr(target, "build", target)
    return lambda hp: build(hp, **kwargs)


def _constructed(kind: type, name: str, kwargs: dict[str, Any]) -> Any:
    try:
        return kind(**kwargs)
    except Exception as error:
        raise BuilderError(f"creating {name} failed with {describe(error)}") from error


def _declared_build(target: Any) -> Callable[..., Any]:
    """What the user wrote: KerasTuner puts a wrapper that takes anything before it."""
    build: Callable[..., Any] = getattr(target, "build", target)
    wrapped = getattr(target, "_build_wrapper", None)
    return target._build if wrapped is not None and build == wrapped else build


def _refuse_own_fit(target: Any, name: str) -> None:
    fit = getattr(type(target), "fit", None)
    if isinstance(target, keras_tuner.HyperModel) and fit is not keras_tuner.HyperModel.fit:
        raise BuilderError(
            f"{name} brings a `fit` of its own, which the trainer would not call; expected a "
            "HyperModel with `build` alone: move what `fit` does into the model's `train_step`, "
            "and batch size, epochs and callbacks into `space:` and `training:` of the study file"
        )


def _pick(
    function: Callable[..., Any],
    spec: ModelSpec,
    facts: Mapping[str, Any],
    accepted: set[str],
    skip: int = 0,
) -> dict[str, Any]:
    """A value for each parameter after the first `skip`; adds the names to `accepted`."""
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    offered = {**facts, **spec.args}
    missing = [p.name for p in named if p.default is p.empty and p.name not in offered]
    if missing:
        raise BuilderError(
            f"the builder {spec.builder} wants {', '.join(missing)}, which is neither in "
            f"model.args nor known of the data; known: {', '.join(sorted(offered))}"
        )
    names = {p.name for p in named}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        names |= set(spec.args)
    accepted |= names
    return {name: value for name, value in offered.items() if name in names}


def _check_args(spec: ModelSpec, accepted: set[str]) -> None:
    unknown = sorted(set(spec.args) - accepted)
    if unknown:
        raise BuilderError(
            f"model.args: the builder {spec.builder} takes no {', '.join(unknown)}; "
            f"it takes: {', '.join(sorted(accepted)) or 'nothing'}"
        )


def _source_hash(module: ModuleType, target: Any) -> str:
    definition = target if inspect.isfunction(target) or inspect.isclass(target) else type(target)
    homes = dict.fromkeys([module, inspect.getmodule(definition) or module])
    digest = hashlib.sha256()
    for home in homes:
        file = getattr(home, "__file__", None)
        digest.update(Path(file).read_bytes() if file else home.__name__.encode())
    return digest.hexdigest()[:16]
