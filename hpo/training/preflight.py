"""Everything that can be wrong with a study, found before it exists.

The builder is tried with the lowest values of its parameters and, while names of the study file's
space have not been asked for, with others. The first model is trained and evaluated on a few rows,
so a wrong output, loss or metric shows here and not in the first trial.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hpo.data import DataSignature
from hpo.errors import BuilderError, HpoError
from hpo.space import SpaceError, Suggest
from hpo.space.mirrors import is_mirrored
from hpo.space.values import fits, in_words
from hpo.spec import StudySpec
from hpo.spec.checks import trainer_findings
from hpo.spec.directions import better_direction
from hpo.spec.messages import FindingsError
from hpo.spec.models import (
    AUGMENT_PARAMETERS,
    TRAINING_PARAMETERS,
    Augment,
    BoolParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
)
from hpo.training.augment import check_augment
from hpo.training.bench import (
    Bench,
    TrialModel,
    build_model,
    few_rows,
    make_runner,
    prepare,
)
from hpo.training.compiling import SettingError
from hpo.training.dry_fit import (
    DryFit,
    check_averages,
    dry_fit,
    measured_elsewhere,
    not_looked_at,
)
from hpo.training.findings import Preflight, StudyProblem
from hpo.training.freeing import free_widths
from hpo.training.plain import is_plain, written_compilation
from hpo.training.targets import check_output, wants_probabilities
from hpo.usercode import describe

_PROBES = 12
# From this share of one class on, accuracy says little.
_SKEW = 0.8


def check_study(
    spec: StudySpec,
    project: Path,
    shared: Path | None = None,
    tell: Callable[[str], None] = lambda _words: None,
) -> Preflight:
    """Opens the data and leaves it in the shared folder, builds models, takes a step.

    What is wrong with single entries of the study file is in `problems`.

    Args:
        tell: Told what is done next, if that may end the process.

    Raises:
        DataError, BuilderError: The study can't be trained at all.
    """
    bench = prepare(spec, project, shared)
    tell(f"built and tried the model of {spec.model.builder}")
    problems: list[StudyProblem] = []
    warnings = [*bench.data.signature.warnings, *_skewed(spec, bench.data.signature)]
    metrics: tuple[str, ...] = ()
    parameters: dict[str, Parameter] = {}
    try:
        suggested: dict[str, Parameter] = {}
        first = _build(bench, _noting(suggested, _lowest))
        own_fit = bench.builder.own_fit is not None
        check_augment(spec, bench.data.train.x, first.values.declared, own_fit=own_fit)
        done = _one_epoch(bench, first)
        metrics = tuple(done.metrics)
        if own_fit:
            warnings += measured_elsewhere(bench, first, done, lambda: _build(bench, _lowest))
            warnings += not_looked_at(bench, done)
        problems += _without_effect(bench, first)
        _check_savable(bench, first)
        problems += _check_metric(spec, metrics)
        warnings += _strange_objective(spec, metrics)
        parameters, asked, fixed = _ask_around(bench, first, suggested)
        problems += _never_asked(spec, parameters, asked, fixed)
        problems += _never_so(spec, parameters)
        problems += _check_sampler(spec, suggested)
    except SpaceError as error:
        problems.append(StudyProblem(("space", error.entry), str(error)))
    except FindingsError as error:
        problems += [StudyProblem(each.path, each.message) for each in error.findings]
    except SettingError as error:
        problems.append(StudyProblem(_place(spec, error.entry), error.message))
    return Preflight(
        signature=bench.data.signature,
        builder_hash=bench.builder.source_hash,
        optuna_major=version("optuna").partition(".")[0],
        keras_major=keras.__version__.partition(".")[0],
        parameters=parameters,
        metrics=metrics,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _place(spec: StudySpec, entry: str) -> tuple[str, ...]:
    """Where the study file says what `training.entry` is: in `space` if it stands there."""
    name = entry.replace(".", "_")
    return ("space", name) if name in spec.space else ("training", *entry.split("."))


def _skewed(spec: StudySpec, signature: DataSignature) -> list[str]:
    """Plain accuracy rewards a model that knows nothing but the most frequent class."""
    counts = signature.class_counts
    if not counts or not spec.objective.metric.endswith("accuracy"):
        return []
    if signature.task == "multilabel" or max(counts) < _SKEW * sum(counts):
        return []
    name = (signature.class_names or ())[counts.index(max(counts))]
    words = (
        f"{max(counts) / sum(counts):.0%} of the training rows are of the class {name!r}, which "
        f"gives {spec.objective.metric} as much for no work: consider the metric AUC or F1Score in "
        "`training.metrics`, and `training.class_weight: balanced`"
    )
    return [words]


def _build(bench: Bench, suggest: Suggest) -> TrialModel:
    try:
        return build_model(bench, suggest, seed=0)
    except (HpoError, FindingsError):
        raise
    except BaseException as error:
        raise BuilderError(
            f"the builder {bench.spec.model.builder} raised {describe(error)}"
        ) from error


def _one_epoch(bench: Bench, built: TrialModel) -> DryFit:
    """What an epoch reports, found by training on a few rows."""
    name, signature = bench.spec.model.builder, built.signature
    few = Bench(bench.spec, few_rows(bench.data), bench.builder)
    try:
        outputs = built.model(few.data.train.x, training=False)
        check_output(outputs, signature, name)
        _check_probabilities(built.model, outputs, signature, name)
        if bench.builder.own_fit is not None:
            done = dry_fit(few, built)
            check_averages(built.model, name)
            return done
        runner = make_runner(few, built, traced=not _is_surely_traceable(built))
        order = np.arange(len(few.data.train.y), dtype=np.int32)
        return DryFit(runner.train(order) | runner.evaluate(), {})
    except HpoError:
        raise
    except BaseException as error:
        raise BuilderError(
            f"the model of {name} can't be trained on this data: {describe(error)}"
        ) from error


def _is_surely_traceable(built: TrialModel) -> bool:
    """Whether a graph of the model's steps, which takes most of a check's time, can't fail."""
    model = built.model
    dense = is_plain(model) and free_widths(model) is not None
    plainly = written_compilation(model) is not None and not model.jit_compile
    return dense and plainly and built.settings.augment == Augment()


def _check_savable(bench: Bench, built: TrialModel) -> None:
    """Finds out now what would spoil the export of the best model at the end."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            built.model.save(Path(folder) / "model.keras")
    except BaseException as error:
        raise BuilderError(
            f"Keras can't save the model of {bench.spec.model.builder}: {describe(error)}"
        ) from error


def _check_probabilities(
    model: keras.Model, outputs: Any, signature: DataSignature, name: str
) -> None:
    if signature.task == "regression" or not wants_probabilities(model):
        return
    shares = np.asarray(outputs, np.float64)
    sums_up = signature.task != "multiclass" or np.allclose(shares.sum(axis=-1), 1, atol=1e-2)
    if shares.min() < 0 or shares.max() > 1 + 1e-5 or not sums_up:
        head = "softmax" if signature.task == "multiclass" else "sigmoid"
        raise BuilderError(
            f"the model of {name} must put out probabilities for a {signature.task} task, "
            f"received values from {shares.min():.3g} to {shares.max():.3g}; "
            f"end it with activation={head!r}, or compile it with a loss that has from_logits=True"
        )


def _without_effect(bench: Bench, first: TrialModel) -> list[StudyProblem]:
    words = (
        f"the builder {bench.spec.model.builder} compiles its model and does not ask for {{!r}}, "
        "so it would change nothing; return the model uncompiled, or read it with hp.get"
    )
    fixed = first.values.fixed
    # A HyperModel's own `fit` may have read it after the model was built.
    idle = sorted(first.unused - (set(first.hp.values) - set(fixed)))
    return [
        _fixed_by_builder(bench.spec, name, fixed[name])
        if name in fixed
        else StudyProblem(("space", name), words.format(name))
        for name in idle
    ]


def _fixed_by_builder(spec: StudySpec, name: str, value: Any) -> StudyProblem:
    words = (
        f"the builder {spec.model.builder} fixes {name!r} to {value!r} (hp.Fixed), so the entry "
        "would change nothing; remove it, or have the builder declare a range, such as hp.Float"
    )
    return StudyProblem(("space", name), words)


def _ask_around(
    bench: Bench, first: TrialModel, suggested: dict[str, Parameter]
) -> tuple[dict[str, Parameter], set[str], dict[str, Any]]:
    """What is declared, asked for, fixed; other values may take other branches of the builder."""
    parameters, asked = dict(first.values.declared), set(first.values.asked)
    fixed = dict(first.values.fixed)
    draw = random.Random(0)
    # Entries that only the builder can take: does each of its branches?
    doubtful = bool(trainer_findings(bench.spec.space, own=()))
    for probe in range(_PROBES):
        if asked >= set(bench.spec.space) and not doubtful:
            break
        suggest = _highest if probe == 0 else _drawn(draw)
        built = _build(bench, _noting(suggested, suggest))
        if bench.builder.own_fit is not None:
            _one_epoch(bench, built)
        parameters |= built.values.declared
        asked |= built.values.asked
        fixed |= built.values.fixed
    return parameters, asked, fixed


def _never_asked(
    spec: StudySpec, parameters: dict[str, Parameter], asked: set[str], fixed: dict[str, Any]
) -> list[StudyProblem]:
    problems = []
    for name in spec.space:
        if name in asked:
            continue
        if name in fixed:
            problems.append(_fixed_by_builder(spec, name, fixed[name]))
            continue
        plain = {each.partition("[")[0] for each in parameters}
        known = sorted({*plain, *TRAINING_PARAMETERS} - set(AUGMENT_PARAMETERS))
        near = get_close_matches(name, [*known, *AUGMENT_PARAMETERS], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it asks for: {', '.join(known)}"
        words = f"the builder {spec.model.builder} never asks for {name!r}; {hint}"
        problems.append(StudyProblem(("space", name), words))
    return problems


def _never_so(spec: StudySpec, parameters: dict[str, Parameter]) -> list[StudyProblem]:
    """Conditions on what the builder declares that no trial can fulfil."""
    problems = []
    words = "{} never has this value: expected {} as the builder declares it, received {!r}"
    for name, entry in spec.space.items():
        conditions = entry.when if isinstance(entry, Parameter) else None
        for parent, wanted in (conditions or {}).items():
            declared = parameters.get(parent)
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if declared is not None and not fits(value, declared):
                    message = words.format(parent, in_words(declared), value)
                    problems.append(StudyProblem(("space", name, "when", parent), message))
    return problems


def _check_sampler(spec: StudySpec, suggested: dict[str, Parameter]) -> list[StudyProblem]:
    """Samplers that go through a fixed list of values must know every parameter."""
    sampler = spec.search.sampler
    if sampler.type == "brute_force":
        endless = [n for n, p in suggested.items() if isinstance(p, FloatParameter) and not p.step]
        words = "brute_force can't try every value of {!r}: give it a step in space, or choices"
        return [StudyProblem(("search", "sampler"), words.format(name)) for name in endless]
    if sampler.type != "grid":
        return []
    grid = sampler.options["search_space"]
    path = ("search", "sampler", "search_space")
    lacks = "the grid lacks {!r}, which the builder asks for: add it, or fix it in space"
    idle = "the grid has {!r}, which is never sampled: leave it out"
    scale = "a grid can't hold {!r}, whose scale is reversed: narrow it in space without reverse"
    reversed_ = [name for name, parameter in suggested.items() if is_mirrored(parameter)]
    return (
        [StudyProblem(path, scale.format(name)) for name in reversed_]
        + [StudyProblem(path, lacks.format(name)) for name in suggested if name not in grid]
        + [StudyProblem((*path, name), idle.format(name)) for name in grid if name not in suggested]
    )


def _check_metric(spec: StudySpec, metrics: tuple[str, ...]) -> list[StudyProblem]:
    metric = spec.objective.metric
    if metric in metrics:
        return []
    near = get_close_matches(metric, metrics, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    words = f"{metric!r} is never reported; {hint}reported are: {', '.join(metrics) or 'none'}"
    return [StudyProblem(("objective", "metric"), words)]


def _strange_objective(spec: StudySpec, metrics: tuple[str, ...]) -> list[str]:
    """What can be meant, and is a mistake more often."""
    metric, direction = spec.objective.metric, spec.objective.direction
    better = better_direction(metric)
    words = []
    if better is not None and better != direction:
        words.append(
            f"the objective is to {direction} {metric}, which looks for the worst model; is "
            f"`direction: {better}` meant?"
        )
    if not metric.startswith("val_") and f"val_{metric}" in metrics:
        words.append(
            f"the objective {metric} is measured on the rows that are trained on, and rewards "
            f"learning them by heart; is val_{metric} meant?"
        )
    return words


def _noting(suggested: dict[str, Parameter], suggest: Suggest) -> Suggest:
    """The same suggestions, with a note of what was asked for."""

    def noted(name: str, parameter: Parameter) -> Scalar:
        suggested[name] = parameter
        return suggest(name, parameter)

    return noted


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
