"""What a trainer prepares once, and the models that it builds and trains with that."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from hpo.data import Part, SearchData, open_search_data
from hpo.data.sharing import open_shared_data
from hpo.data.tensors import Tensors
from hpo.space import Suggest, Values
from hpo.space.hyperparameters import TrialHyperParameters
from hpo.spec import StudySpec
from hpo.training.augment import make_augmentation
from hpo.training.builder import Builder, load_builder
from hpo.training.compiling import (
    COMPILED_IN,
    Settings,
    class_weights,
    compile_model,
    settle,
    targets_for,
    training_defaults,
    wants_one_hot,
)
from hpo.training.epochs import EpochRunner
from hpo.training.graphs import GraphFolder
from hpo.training.reuse import GraphCache, Structure
from hpo.training.seeding import begin_session, forget_draws


@dataclass(frozen=True)
class Bench:
    """What a trainer prepares once and uses for all of its trials.

    Attributes:
        folder: Where the trainers of this machine share their graphs.
    """

    spec: StudySpec
    data: SearchData
    builder: Builder
    folder: GraphFolder | None = None
    graphs: GraphCache = field(default_factory=GraphCache, init=False)
    tensors: Tensors = field(default_factory=Tensors, init=False)


@dataclass(frozen=True, eq=False)
class TrialModel:
    """A built and compiled model with the values that it was built from.

    Attributes:
        unused: Entries of the study file's space that change nothing, because the builder compiles
            its model and does not ask for them.
    """

    model: keras.Model
    values: Values
    settings: Settings
    unused: frozenset[str]
    hp: TrialHyperParameters


def prepare(
    spec: StudySpec, project: Path, shared: Path | None = None, fingerprint: str | None = None
) -> Bench:
    """Opens data and builder.

    Args:
        shared: Folder that the trainers of this machine share.
        fingerprint: Of the data, which may lie in that folder; None if nobody knows it yet.

    Raises:
        DataError, BuilderError: The study can't be trained here.
    """
    if shared is None:
        data = open_search_data(spec.data, project)
    else:
        data = open_shared_data(spec.data, project, shared, fingerprint)
    forget_draws()
    builder = load_builder(spec.model, data.signature, project)
    study = f"{spec.to_json()}\n{data.signature.fingerprint}"
    folder = None if shared is None else GraphFolder(shared / "graphs", study)
    return Bench(spec, data, builder, folder)


def build_model(bench: Bench, suggest: Suggest, seed: int) -> TrialModel:
    """A new, compiled model; equal seeds and values give equal weights."""
    begin_session(seed, bench.builder.settings)
    training = bench.spec.training
    values = Values(bench.spec.space, training_defaults(training), suggest)
    hp = TrialHyperParameters(values)
    model = bench.builder.build(hp)
    idle = set(COMPILED_IN) - set(values.taken) if model.compiled else set()
    settings = settle(values, training)
    compile_model(model, settings, training, bench.data.signature)
    return TrialModel(model, values, settings, frozenset(idle & set(bench.spec.space)), hp)


def make_runner(
    bench: Bench, built: TrialModel, structure: Structure | None = None, *, traced: bool = True
) -> EpochRunner:
    """The model's epochs on the study's data, targets and weights as its loss wants them.

    Args:
        structure: Of a model whose graphs other trainers may have, or may use.
        traced: As for EpochRunner.
    """
    data = bench.data
    train = _rows_of(bench, built.model, "train", data.train)
    weights = class_weights(bench.spec.training, data.train.y, data.signature)
    if weights is not None:
        train = (*train, weights)
    validation = _rows_of(bench, built.model, "validation", data.validation)
    augment = make_augmentation(built.settings.augment, data.train.x)
    files = None
    if bench.folder is not None and structure is not None:
        files = bench.folder.of_structure(structure.written, structure.numbers)
    batch_size = built.settings.batch_size
    return EpochRunner(built.model, train, validation, batch_size, augment, files, traced=traced)


def _rows_of(bench: Bench, model: keras.Model, name: str, part: Part) -> tuple[Any, ...]:
    """Features and targets of a part, the same tensors for all models that want them so."""
    targets = f"{name} one-hot" if wants_one_hot(model) else f"{name} targets"
    return (
        bench.tensors.of(name, lambda: part.x),
        bench.tensors.of(targets, lambda: targets_for(model, part.y, bench.data.signature)),
    )
