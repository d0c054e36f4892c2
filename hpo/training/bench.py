"""What a trainer prepares once, and the models that it builds and trains with that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from hpo.data import DataSignature, Part, SearchData, open_search_data
from hpo.data.features import take
from hpo.data.sharing import open_shared_data
from hpo.data.tensors import Tensors
from hpo.space import Suggest, Values
from hpo.space.hyperparameters import TrialHyperParameters
from hpo.spec import StudySpec
from hpo.spec.checks import trainer_findings
from hpo.spec.messages import FindingsError
from hpo.training.augment import make_augmentation
from hpo.training.builder import Builder, load_builder
from hpo.training.compiling import (
    COMPILED_IN,
    Settings,
    class_weights,
    compile_model,
    ends_in_logits,
    settle,
    training_defaults,
)
from hpo.training.epochs import EpochRunner
from hpo.training.graphs import GraphFolder
from hpo.training.reuse import GraphCache, Structure
from hpo.training.seeding import begin_session, forget_draws
from hpo.training.targets import signature_for, target_form, targets_for

_FEW_ROWS = 8


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
        signature: The data's, as this model takes it.
        unused: Entries of the study file's space that change nothing, because the builder compiles
            its model and does not ask for them.
    """

    model: keras.Model
    values: Values
    settings: Settings
    signature: DataSignature
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


def few_rows(data: SearchData) -> SearchData:
    """Enough to take a step with."""
    train, validation = (
        Part(take(part.x, slice(_FEW_ROWS)), part.y[:_FEW_ROWS])
        for part in (data.train, data.validation)
    )
    return replace(data, train=train, validation=validation)


def build_model(bench: Bench, suggest: Suggest, seed: int) -> TrialModel:
    """A new, compiled model; equal seeds and values give equal weights.

    Raises:
        FindingsError: The study file's space has something for the trainer that it can't take.
        SpaceError, SettingError, BuilderError: As the builder and the trainer ask for values.
        Exception: Whatever the builder raised.
    """
    begin_session(seed, bench.builder.settings)
    training = bench.spec.training
    values = Values(bench.spec.space, training_defaults(training), suggest)
    hp = TrialHyperParameters(values)
    model = bench.builder.build(hp)
    if wrong := trainer_findings(bench.spec.space, values.declared):
        raise FindingsError(wrong)
    signature = signature_for(model, bench.data.signature)
    idle = set(COMPILED_IN) - set(values.taken) if model.compiled else set()
    settings = settle(values, training)
    # A loop of the user's own needs no compiled model, and so no probabilities.
    logits = bench.builder.own_fit is not None and ends_in_logits(model)
    compile_model(model, settings, training, signature, logits=logits)
    unused = frozenset(idle & set(bench.spec.space))
    return TrialModel(model, values, settings, signature, unused, hp)


def make_runner(
    bench: Bench, built: TrialModel, structure: Structure | None = None, *, traced: bool = True
) -> EpochRunner:
    """The model's epochs on the study's data, targets and weights as its loss wants them.

    Args:
        structure: Of a model whose graphs other trainers may have, or may use.
        traced: As for EpochRunner.
    """
    data = bench.data
    train = _rows_of(bench, built, "train", data.train)
    weights = class_weights(bench.spec.training, data.train.y, data.signature)
    if weights is not None:
        train = (*train, weights)
    validation = _rows_of(bench, built, "validation", data.validation)
    augment = make_augmentation(built.settings.augment, data.train.x)
    files = None
    if bench.folder is not None and structure is not None:
        files = bench.folder.of_structure(structure.written, structure.numbers)
    batch_size = built.settings.batch_size
    return EpochRunner(built.model, train, validation, batch_size, augment, files, traced=traced)


def _rows_of(bench: Bench, built: TrialModel, name: str, part: Part) -> tuple[Any, ...]:
    """Features and targets of a part, the same tensors for all models that want them so."""
    model, signature = built.model, built.signature
    form = target_form(model, signature)
    return (
        bench.tensors.of(name, lambda: part.x),
        bench.tensors.of(f"{name} {form}", lambda: targets_for(model, part.y, signature)),
    )
