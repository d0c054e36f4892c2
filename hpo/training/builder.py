"""The user's model builder: found, loaded and called through this module alone."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import keras_tuner

from hpo.data import DataSignature
from hpo.errors import BuilderError
from hpo.spec.models import ModelSpec
from hpo.training.seeding import end_session, keras_settings
from hpo.usercode import describe, find_handed_over, hint, import_user_module


@dataclass(frozen=True)
class Builder:
    """A model builder, ready to be called.

    Attributes:
        name: As the study file says it.
        source_hash: Of the module that the study file names and of the one that defines the
            builder; not of what these import.
        own_fit: The `fit` of a HyperModel that overrides KerasTuner's; it takes `hp` and the model
            first.
        settings: Of Keras, as its module or the notebook has set them: each build begins so.
    """

    name: str
    source_hash: str
    _build: Callable[[Any], Any]
    own_fit: Callable[..., Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

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
    end_session()
    handed = find_handed_over(spec.builder, BuilderError)
    if handed is not None:
        build, own_fit = _bind(handed.target, spec, _facts(signature))
        return Builder(spec.builder, handed.source_hash, build, own_fit, keras_settings())
    module_name, _, name = spec.builder.partition(":")
    module = import_user_module(module_name, project, BuilderError)
    target = getattr(module, name, None)
    if target is None:
        raise BuilderError(f"the module {module_name} has no {name!r}{hint(name, dir(module))}")
    build, own_fit = _bind(target, spec, _facts(signature))
    source = _source_hash(module, target)
    return Builder(spec.builder, source, build, own_fit, keras_settings())


def _facts(signature: DataSignature) -> dict[str, Any]:
    return {
        "input_shape": signature.input_shape,
        "num_classes": signature.num_classes,
        "num_outputs": signature.num_outputs,
        "class_names": signature.class_names,
        "task": signature.task,
        "vocabulary_sizes": signature.vocabulary_sizes,
        "target_mean": signature.target_mean,
        "target_std": signature.target_std,
        "mask_value": signature.mask_value,
    }


def _bind(
    target: Any, spec: ModelSpec, facts: Mapping[str, Any]
) -> tuple[Callable[[Any], Any], Callable[..., Any] | None]:
    """A callable of `hp` alone, and the HyperModel's own `fit` if it has one."""
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
    kwargs = _pick(_declared_build(target), spec, facts, accepted, skip=1)
    _check_args(spec, accepted)
    build = getattr(target, "build", target)
    return lambda hp: build(hp, **kwargs), _own_fit(target)


def _constructed(kind: type, name: str, kwargs: dict[str, Any]) -> Any:
    try:
        return kind(**kwargs)
    except BaseException as error:
        raise BuilderError(f"creating {name} failed with {describe(error)}") from error


def _declared_build(target: Any) -> Callable[..., Any]:
    """What the user wrote: KerasTuner puts a wrapper that takes anything before it."""
    build: Callable[..., Any] = getattr(target, "build", target)
    wrapped = getattr(target, "_build_wrapper", None)
    return target._build if wrapped is not None and build == wrapped else build


def _own_fit(target: Any) -> Callable[..., Any] | None:
    if not isinstance(target, keras_tuner.HyperModel):
        return None
    fit: Callable[..., Any] = target.fit
    return None if getattr(fit, "__func__", fit) is keras_tuner.HyperModel.fit else fit


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
