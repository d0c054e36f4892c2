"""A HyperModel that brings its own `fit`, as KerasTuner's Tuner would call it.

It is called with `hp`, the model, the training arrays, `validation_data` and `callbacks`. While it
runs, the model's own `fit` is another one: it adds the trial's callback where the HyperModel
dropped it, and goes on from the trial's last epoch after a takeover. So every epoch of `model.fit`
is reported, pruned and saved, over any number of calls. An epoch of a loop of the user's own counts
when the loop calls `on_epoch_end` of the callbacks that it received. Where neither happens, the
trial's value is what `fit` returns.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpo.errors import TrialError
from hpo.training.bench import Bench, TrialModel
from hpo.training.channel import Channel, TrialTask
from hpo.training.checkpoints import Checkpoint
from hpo.training.compiling import base_rate, class_weights
from hpo.training.progress import Progress
from hpo.training.run import Run
from hpo.training.state import build_optimizers
from hpo.training.targets import given_targets, targets_for, wants_one_hot

Fit = Callable[..., Any]

# What `model.fit` takes by position.
FIT_PARAMETERS = tuple(inspect.signature(keras.Model.fit).parameters)[1:]


class _TrialOver(BaseException):
    """Leaves the user's code: the trial is pruned or has stopped early."""


class OwnFitRun(Run):
    """A trial that is trained by its HyperModel."""

    def __init__(self, bench: Bench, task: TrialTask, built: TrialModel) -> None:
        super().__init__(bench, task, built)
        self._bench, self._built = bench, built
        self._checkpoint: Checkpoint | None = None
        self._channel: Channel
        self._callback = _EpochCallback(self)
        self._calls = 0
        self._inside = self._pruned = False
        self._started = time.perf_counter()
        self._seen: dict[str, None] = {}
        if not self._model.built:
            # A study knows a trial's weights by their number before `fit` is called.
            self._model(self._row()[0])

    def restore(self) -> None:
        # The weights wait for the call of `model.fit` that they belong to.
        self._checkpoint = self._read_checkpoint()

    def train(self, channel: Channel) -> bool:
        if self.ended:
            return False
        self._channel = channel
        self._started = time.perf_counter()
        try:
            with replaced_fit(self._model, self._fit):
                result = call_fit(self._bench, self._built, self._callback)
        except _TrialOver:
            return self._pruned
        if not self._pruned:
            self._take_result(result)
        return self._pruned

    def begin_epoch(self) -> None:
        self._started = time.perf_counter()
        self._forget_unless_inside()
        self._begin_epoch()

    def end_epoch(self, trained: keras.Model, logs: Mapping[str, Any]) -> None:
        """Takes an epoch in; stops `model.fit`, or leaves a loop that is not Keras's."""
        found = numbers(logs)
        self._seen |= dict.fromkeys(found)
        if self._objective.metric not in found:
            return
        self._forget_unless_inside()
        self._pruned = self._end_epoch(found, self._started, self._channel)
        self._started = time.perf_counter()
        if self._pruned or self.ended:
            if not self._inside:
                raise _TrialOver
            trained.stop_training = True

    def _forget_unless_inside(self) -> None:
        """A loop of the user's own begins at its beginning, also after a takeover."""
        if self._checkpoint is not None and not self._inside:
            self._checkpoint, self.progress = None, Progress()

    def _fit(self, fit: Fit, *args: Any, **kwargs: Any) -> Any:
        """Stands for the model's `fit` while the user's code runs."""
        if self._pruned or self.ended:
            raise _TrialOver
        given = dict(zip(FIT_PARAMETERS, args, strict=False)) | kwargs
        progress, call = self.progress, self._calls
        self._calls += 1
        if call < len(progress.calls):
            return _history(self._model, self._logs_of(call))
        done = progress.epoch - sum(progress.calls)
        encode_labels(given, self._built)
        self._complete(given, done)
        before = self._logs_of(call)
        self._resume()
        if given["initial_epoch"] >= given["epochs"]:
            history = _history(self._model, before)
        else:
            history = self._fit_inside(fit, given)
            _put_before(history, before)
        self._take_schedule_back()
        progress.calls.append(progress.epoch - sum(progress.calls))
        return history

    def _fit_inside(self, fit: Fit, given: dict[str, Any]) -> Any:
        self._inside = True
        try:
            return fit(**given)
        finally:
            self._inside = False

    def _complete(self, given: dict[str, Any], done: int) -> None:
        """Adds what the user's code has not said itself."""
        given["callbacks"] = with_callback(given.get("callbacks"), self._callback)
        given["initial_epoch"] = given.get("initial_epoch", 0) + done
        given.setdefault("epochs", self._settings.epochs)
        given.setdefault("verbose", 0)
        x = given.get("x")
        if isinstance(x, np.ndarray | dict | list | tuple) or keras.ops.is_tensor(x):
            given.setdefault("batch_size", self._settings.batch_size)
        part = self._bench.data.train
        if x is part.x:
            weights = class_weights(self._training, part.y, self._bench.data.signature)
            if weights is not None:
                given.setdefault("sample_weight", weights)

    def _resume(self) -> None:
        # Before the checkpoint, which holds the rate as a schedule has left it.
        self._rate = base_rate(self._model)
        if self._checkpoint is None:
            return
        build_optimizers(self._model, self._row())
        self._assign(self._checkpoint)
        self._checkpoint = None

    def _row(self) -> tuple[Any, Any]:
        part = self._bench.data.train
        x = keras.tree.map_structure(lambda array: array[:1], part.x)
        return x, targets_for(self._model, part.y[:1], self._built.signature)

    def _take_schedule_back(self) -> None:
        """Shows the user's code the rate that it has set, which the next call begins with.

        It may compute the next rate from it, and the schedule would count twice.
        """
        if self._rate is not None and self._training.schedule is not None:
            self._model.optimizer.learning_rate.assign(self._rate)

    def _logs_of(self, call: int) -> list[dict[str, float]]:
        """The epochs of a call, as far as they are trained."""
        calls = self.progress.calls
        first = sum(calls[:call])
        last = first + calls[call] if call < len(calls) else self.progress.epoch
        return self.progress.history[first:last]

    def _take_result(self, result: Any) -> None:
        """Without an epoch that tells the objective, what `fit` returned is the trial's value."""
        self._forget_unless_inside()
        if self.progress.epoch:
            return
        metric = self._objective.metric
        logs = metrics_of(result, metric)
        if metric not in logs:
            raise TrialError(
                f"the fit of {self._bench.builder.name} gave no {metric!r}: it returned "
                f"{_in_words(result, logs)}, and its epochs reported {_listed(self._seen)}; "
                "let it pass validation_data and callbacks on to model.fit, or return the value"
            )
        self.ended = True
        self._end_epoch(logs, self._started, self._channel)


def metrics_of(result: Any, metric: str) -> dict[str, float]:
    """What a HyperModel's `fit` may return, as metrics by name; empty for anything else.

    A number is the objective's value, a list is averaged. Of a History the last epoch counts: its
    weights are the ones that are there to be saved.
    """
    if isinstance(result, keras.callbacks.History):
        return numbers({name: values[-1] for name, values in result.history.items() if values})
    if isinstance(result, list):
        each = [metrics_of(one, metric) for one in result]
        names = each[0].keys() if each else ()
        return {n: float(np.mean([one[n] for one in each])) for n in names if _in_all(n, each)}
    return numbers(result if isinstance(result, Mapping) else {metric: result})


def _in_all(name: str, each: list[dict[str, float]]) -> bool:
    return all(name in one for one in each)


class _EpochCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the trial of each epoch, wherever it is trained."""

    def __init__(self, run: OwnFitRun) -> None:
        super().__init__()
        self._run = run

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._run.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._run.end_epoch(self.model, logs or {})

    def __deepcopy__(self, memo: Any) -> _EpochCallback:
        return self


@contextlib.contextmanager
def replaced_fit(model: keras.Model, instead: Callable[..., Any]) -> Iterator[None]:
    """While inside, `model.fit(...)` is `instead(fit, ...)`."""
    fit = model.fit
    # Past Keras, which looks into everything that becomes an attribute of a model.
    object.__setattr__(model, "fit", lambda *args, **kwargs: instead(fit, *args, **kwargs))
    try:
        yield
    finally:
        object.__delattr__(model, "fit")


def call_fit(bench: Bench, built: TrialModel, callback: keras.callbacks.Callback) -> Any:
    """Calls the user's `fit` with as much of what Tuner.search would hand on as it takes."""
    fit = bench.builder.own_fit
    assert fit is not None
    train, held = (
        (part.x, given_targets(part.y, built.signature))
        for part in (bench.data.train, bench.data.validation)
    )
    offered: dict[str, Any] = {
        "validation_data": held,
        "callbacks": [callback],
    }
    parameters = inspect.signature(fit).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        offered = {name: value for name, value in offered.items() if name in parameters}
    # Not among **kwargs, where they would meet the ones that `fit` gives to model.fit itself.
    settings = {"batch_size": built.settings.batch_size, "epochs": built.settings.epochs}
    offered |= {name: value for name, value in settings.items() if name in parameters}
    return fit(built.hp, built.model, *train, **offered)


def encode_labels(given: dict[str, Any], built: TrialModel) -> None:
    """Has `model.fit` compare a column a class where its loss does and `fit` has left numbers."""
    if built.signature.task != "multiclass" or not wants_one_hot(built.model):
        return

    classes = built.signature.num_classes
    if given.get("y") is not None:
        given["y"] = _one_hot(given["y"], classes)
    elif isinstance(given.get("x"), tf.data.Dataset):
        given["x"] = _with_one_hot(given["x"], classes)
    if "validation_data" in given:
        given["validation_data"] = _with_one_hot(given["validation_data"], classes)


def _with_one_hot(data: Any, classes: int | None) -> Any:
    """A dataset, or features and targets, with class numbers in one-hot form."""
    if isinstance(data, tf.data.Dataset):
        return data.map(lambda x, *others: (x, _one_hot(others[0], classes), *others[1:]))
    if isinstance(data, tuple | list) and len(data) > 1:
        return (data[0], _one_hot(data[1], classes), *data[2:])
    return data


def _one_hot(y: Any, classes: int | None) -> Any:
    is_array = isinstance(y, np.ndarray) or keras.ops.is_tensor(y)
    if is_array and "int" in str(y.dtype) and tuple(y.shape[1:]) in ((), (1,)):
        return keras.ops.one_hot(keras.ops.reshape(y, (-1,)), classes)
    return y


def with_callback(given: Any, callback: keras.callbacks.Callback) -> Any:
    if isinstance(given, keras.callbacks.CallbackList):
        if callback not in given.callbacks:
            given.append(callback)
        return given
    callbacks = keras.tree.flatten(given) if given is not None else []
    return callbacks if callback in callbacks else [*callbacks, callback]


def _history(model: keras.Model, epochs: list[dict[str, float]]) -> keras.callbacks.History:
    """What `model.fit` would have returned for these epochs."""
    history = keras.callbacks.History()
    history.set_model(model)
    history.on_train_begin()
    for epoch, logs in enumerate(epochs):
        history.on_epoch_end(epoch, logs)
    return history


def _put_before(history: Any, epochs: list[dict[str, float]]) -> None:
    if not epochs or not isinstance(history, keras.callbacks.History):
        return
    for name, values in history.history.items():
        values[:0] = [logs[name] for logs in epochs if name in logs]
    history.epoch[:0] = range(len(epochs))


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in logs.items():
        if isinstance(value, bool | str) or value is None:
            continue
        with contextlib.suppress(TypeError, ValueError):
            found[name] = float(value)
    return found


def _in_words(result: Any, logs: Mapping[str, Any]) -> str:
    return _listed(logs) if logs else type(result).__name__


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "nothing"
