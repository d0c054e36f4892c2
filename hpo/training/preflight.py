"""Everything that can be wrong with a study, found before it exists.

The builder is tried with the lowest values of its parameters and, while names of the study file's
space have not been asked for, with others. The first model takes one training step and one test
step, so a wrong output, loss or metric shows here and not in the first trial.
"""

from __future__ import annotations

import random
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpo.data import DataSignature
from hpo.errors import BuilderError, HpoError
from hpo.space import SpaceError, Suggest
from hpo.spec import StudySpec
from hpo.spec.models import (
    TRAINING_PARAMETERS,
    BoolParameter,
    CategoricalParameter,
    IntParameter,
    Parameter,
    Scalar,
)
from hpo.training.compiling import check_output, class_weights, targets_for
from hpo.training.findings import Preflight, StudyProblem
from hpo.training.trial import Bench, TrialModel, build_model, prepare

_PROBES = 12


def check_study(spec: StudySpec, project: Path) -> Preflight:
    """Opens the data, builds models, takes a step.

    Raises:
        DataError, BuilderError: The study can't be trained at all. What is wrong with single
            entries of the study file is in `problems`.
    """
    bench = prepare(spec, project)
    problems: list[StudyProblem] = []
    metrics: tuple[str, ...] = ()
    try:
        class_weights(spec.training, bench.data.train.y, bench.data.signature)
        first = _build(bench, _lowest)
        metrics = _one_step(bench, first)
        parameters, asked = _ask_around(bench, first)
        problems += _never_asked(spec, parameters, asked)
    except SpaceError as error:
        parameters = {}
        problems.append(StudyProblem(("space", error.entry), str(error)))
    if metrics:
        problems += _check_metric(spec, metrics)
    return Preflight(
        signature=bench.data.signature,
        builder_hash=bench.builder.source_hash,
        optuna_major=version("optuna").partition(".")[0],
        keras_major=keras.__version__.partition(".")[0],
        parameters=parameters,
        metrics=metrics,
        problems=tuple(problems),
    )


def _build(bench: Bench, suggest: Suggest) -> TrialModel:
    try:
        return build_model(bench, suggest, seed=0)
    except HpoError:
        raise
    except Exception as error:
        where = _last_line(error)
        raise BuilderError(
            f"the builder {bench.spec.model.builder} raised {type(error).__name__}: {error}{where}"
        ) from error


def _last_line(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"


def _one_step(bench: Bench, built: TrialModel) -> tuple[str, ...]:
    """The names that an epoch reports, found by training on a few rows."""
    model, signature = built.model, bench.data.signature
    name = bench.spec.model.builder
    check_output(model, signature, name)
    part = bench.data.train
    x = tf.constant(part.x[:8])
    y = tf.constant(targets_for(model, part.y[:8], signature))
    _check_probabilities(model, x, signature, name)
    try:
        trained = model.train_step((x, y))
        tested = model.test_step((x, y))
    except Exception as error:
        raise BuilderError(
            f"the model of {name} can't be trained on this data: {type(error).__name__}: {error}"
        ) from error
    return (*trained, *(f"val_{name}" for name in tested))


def _check_probabilities(
    model: keras.Model, x: tf.Tensor, signature: DataSignature, name: str
) -> None:
    loss = model.loss
    if signature.task == "regression" or getattr(loss, "from_logits", False):
        return
    outputs = np.asarray(model(x, training=False), np.float64)
    sums_up = signature.task == "binary" or np.allclose(outputs.sum(axis=-1), 1, atol=1e-2)
    if outputs.min() < 0 or outputs.max() > 1 + 1e-5 or not sums_up:
        head = "sigmoid" if signature.task == "binary" else "softmax"
        raise BuilderError(
            f"the model of {name} must put out probabilities for a {signature.task} task, "
            f"received values from {outputs.min():.3g} to {outputs.max():.3g}; "
            f"end it with activation={head!r}"
        )


def _ask_around(bench: Bench, first: TrialModel) -> tuple[dict[str, Parameter], set[str]]:
    """Declarations and names asked for; other values may take other branches of the builder."""
    parameters, asked = dict(first.values.declared), set(first.values.asked)
    draw = random.Random(0)
    for probe in range(_PROBES):
        if asked >= set(bench.spec.space):
            break
        built = _build(bench, _highest if probe == 0 else _drawn(draw))
        parameters |= built.values.declared
        asked |= built.values.asked
    return parameters, asked


def _never_asked(
    spec: StudySpec, parameters: dict[str, Parameter], asked: set[str]
) -> list[StudyProblem]:
    problems = []
    for name in spec.space:
        if name in asked:
            continue
        known = sorted({*parameters, *TRAINING_PARAMETERS})
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it asks for: {', '.join(known)}"
        words = f"the builder {spec.model.builder} never asks for {name!r}; {hint}"
        problems.append(StudyProblem(("space", name), words))
    return problems


def _check_metric(spec: StudySpec, metrics: tuple[str, ...]) -> list[StudyProblem]:
    metric = spec.objective.metric
    if metric in metrics:
        return []
    near = get_close_matches(metric, metrics, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    words = f"{metric!r} is never reported; {hint}reported are: {', '.join(metrics)}"
    return [StudyProblem(("objective", "metric"), words)]


def _lowest(_name: str, parameter: Parameter) -> Scalar:
    if isinstance(parameter, BoolParameter):
        return False
    return parameter.choices[0] if isinstance(parameter, CategoricalParameter) else parameter.low


def _highest(_name: str, parameter: Parameter) -> Scalar:
    if isinstance(parameter, BoolParameter):
        return True
    return parameter.choices[-1] if isinstance(parameter, CategoricalParameter) else parameter.high


def _drawn(draw: random.Random) -> Suggest:
    def suggest(_name: str, parameter: Parameter) -> Any:
        if isinstance(parameter, BoolParameter):
            return draw.random() < 0.5
        if isinstance(parameter, CategoricalParameter):
            return draw.choice(parameter.choices)
        if isinstance(parameter, IntParameter):
            return draw.randrange(parameter.low, parameter.high + 1, parameter.step)
        return draw.uniform(parameter.low, parameter.high)

    return suggest
