"""A HyperModel's own `fit` tried on a few rows: what it reports, and what a person should know."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from hpo.data import Part
from hpo.data.features import take
from hpo.errors import BuilderError
from hpo.training.bench import Bench, TrialModel, few_rows
from hpo.training.compiling import SettingError, own_optimizer
from hpo.training.epochs import evaluate
from hpo.training.own_fit import (
    FIT_PARAMETERS,
    Fit,
    call_fit,
    encode_labels,
    metrics_of,
    numbers,
    replaced_fit,
    with_callback,
)
from hpo.training.state import averages
from hpo.training.targets import targets_for
from hpo.usercode import describe, on_one_line

# Two figures of the same rows differ by no more.
_ALIKE = 1e-2


@dataclass(frozen=True)
class DryFit:
    """What a HyperModel's `fit` has done with a few rows.

    Attributes:
        reported: By its epochs, the last of each name.
        returned: By itself; a History is no more than its epochs.
    """

    reported: dict[str, float]
    returned: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        return self.reported | {n: v for n, v in self.returned.items() if n not in self.reported}


def dry_fit(bench: Bench, built: TrialModel) -> DryFit:
    """Calls the HyperModel's `fit`; each `model.fit` in it runs one epoch.

    Raises:
        SettingError: The study file asks for what a loop of the user's own does not do.
    """
    reported: dict[str, float] = {}
    callback = _NotingCallback(reported)
    weighted = False

    def one_epoch(fit: Fit, *args: Any, **kwargs: Any) -> Any:
        nonlocal weighted
        given = dict(zip(FIT_PARAMETERS, args, strict=False)) | kwargs
        weighted |= given.get("x") is bench.data.train.x
        encode_labels(given, built)
        given["callbacks"] = with_callback(given.get("callbacks"), callback)
        given["epochs"] = given.get("initial_epoch", 0) + 1
        given.setdefault("verbose", 0)
        return fit(**given)

    with replaced_fit(built.model, one_epoch):
        result = call_fit(bench, built, callback)
    if bench.spec.training.class_weight is not None and not weighted:
        raise SettingError(
            "class_weight",
            f"the fit of {bench.builder.name} hands model.fit other rows than it was given, or "
            "none, so their weights are lost: leave class_weight out, and weigh them in fit",
        )
    return DryFit(reported, metrics_of(result, bench.spec.objective.metric))


def check_averages(model: keras.Model, name: str) -> None:
    """Raises BuilderError when Keras's `fit` would give the model its averages too late."""
    if averages(model) and not own_optimizer(model).ema_overwrite_frequency:
        raise BuilderError(
            f"the optimizer of {name} averages the weights (use_ema=True), but a model gets its "
            "averages only when `fit` has ended, and each epoch before is judged and saved "
            "without them: set ema_overwrite_frequency too, leave use_ema out, or leave out the "
            "HyperModel's own `fit`, then each epoch is judged and saved with its averages"
        )


def measured_elsewhere(
    bench: Bench, built: TrialModel, done: DryFit, rebuild: Callable[[], TrialModel]
) -> list[str]:
    """A `fit` may train on other features, or another model: what it reports no bundle reaches.

    Args:
        rebuild: Makes such a model anew, as the export does; `fit` may have compiled this one.
    """
    metric, held = bench.spec.objective.metric, few_rows(bench.data).validation
    value = done.metrics.get(metric)
    if not metric.startswith("val_") or value is None:
        return []
    try:
        found = _as_exported(rebuild(), built.model, held)
    except Exception as error:  # noqa: BLE001 - what the user has compiled it with may raise anything
        words = (
            f"the model of {bench.builder.name} can't be evaluated on rows as the data has them, "
            f"as `hpo export` does: {on_one_line(describe(error))}"
        )
        return [words]
    own = found.get(metric.removeprefix("val_"))
    if own is None:
        return []
    if math.isclose(own, value, rel_tol=_ALIKE, abs_tol=_ALIKE):
        return []
    words = (
        f"on {len(held.y)} rows the fit of {bench.builder.name} reports {metric} {value:.4g}, but "
        f"the model that it leaves has {own:.4g} on the validation rows as they are; if that is "
        "so in the search too, `hpo export` refuses the best model. Does fit change the features, "
        "train another model, or make up the value by itself? Changes belong into the model, as "
        "layers, or into `data.preprocess`"
    )
    return [words]


def not_looked_at(bench: Bench, done: DryFit) -> list[str]:
    """Where epochs tell the objective, a mean over folds that `fit` returns is not the value."""
    metric = bench.spec.objective.metric
    told, returned = done.reported.get(metric), done.returned.get(metric)
    if told is None or returned is None or math.isclose(told, returned, rel_tol=_ALIKE):
        return []
    words = (
        f"the fit of {bench.builder.name} returns another {metric} ({returned:.4g}) than its last "
        f"epoch has ({told:.4g}), and what it returns is not looked at: the best of all its epochs "
        "is the trial's value. To have the returned one count, keep the metric out of the epochs: "
        "call model.fit without validation_data"
    )
    return [words]


def _as_exported(fresh: TrialModel, model: keras.Model, held: Part) -> dict[str, float]:
    """The metrics of a model with these weights that `fit` has not touched."""
    if not fresh.model.built:
        fresh.model(take(held.x, slice(1)))
    fresh.model.set_weights(model.get_weights())
    y = targets_for(fresh.model, held.y, fresh.signature)
    return evaluate(fresh.model, (held.x, y), fresh.settings.batch_size)


class _NotingCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes what epochs report."""

    def __init__(self, reported: dict[str, float]) -> None:
        super().__init__()
        self._reported = reported

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._reported |= numbers(logs or {})

    def __deepcopy__(self, memo: Any) -> _NotingCallback:
        return self
