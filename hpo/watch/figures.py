"""A study as a table and as a picture, for notebooks."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import optuna
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from hpo.space.mirrors import mirrored, own_name
from hpo.study.database import Database
from hpo.study.storage import StudyStorage
from hpo.study.studies import StudyRecord

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("number", "state", "value", "datetime_start", "duration", "params", "user_attrs")
_COLOURS = {TrialState.COMPLETE: "tab:blue", TrialState.PRUNED: "tab:orange"}
_SLICES = 6
# With fewer trials, importances say nothing.
_ENOUGH = 5


def trials_frame(database: Database, record: StudyRecord) -> pd.DataFrame:
    """The trials as Optuna's `trials_dataframe` has them, the single value as `value`.

    Of a parameter whose mirror image is stored it has the value itself.
    """
    study = _study(database, record)
    frame = study.trials_dataframe(_COLUMNS)
    names = {f"value_{record.metric}": "value"}
    columns = [str(column) for column in frame]
    stored = [name.removeprefix("params_") for name in columns if name.startswith("params_")]
    mirrors = {each: name for each in stored if (name := own_name(each)) is not None}
    trials = study.get_trials(deepcopy=False) if mirrors else []
    for each, name in mirrors.items():
        # The range may differ from trial to trial.
        frame[f"params_{each}"] = [_unmirrored(trial, each) for trial in trials]
        names[f"params_{each}"] = f"params_{name}"
    return frame.rename(columns=names)


def _unmirrored(trial: FrozenTrial, stored: str) -> float:
    if stored not in trial.params:
        return math.nan
    span: Any = trial.distributions[stored]
    return float(mirrored(trial.params[stored], span.low, span.high))


def draw_study(database: Database, record: StudyRecord) -> Figure:
    """History, importances, and the values against each of the most important parameters."""
    study = _study(database, record)
    trials = [trial for trial in study.trials if trial.state in _COLOURS and _value(trial)]
    importances = _importances(study, trials)
    names = list(importances) or sorted({name for trial in trials for name in trial.params})
    names = names[:_SLICES]
    rows = 1 + math.ceil(len(names) / 3)
    figure = _StudyFigure(figsize=(10, 3 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 6)
    _history(figure.add_subplot(grid[0, :4]), trials, record)
    _bars(figure.add_subplot(grid[0, 4:]), importances)
    for index, name in enumerate(names):
        row, column = divmod(index, 3)
        place = grid[1 + row, 2 * column : 2 * column + 2]
        _slice(figure.add_subplot(place), trials, name, record)
    figure.suptitle(record.name)
    return figure


class _StudyFigure(Figure):
    """Shows in a notebook also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def _study(database: Database, record: StudyRecord) -> optuna.Study:
    return optuna.Study(record.name, StudyStorage(database, record))


def _value(trial: FrozenTrial) -> bool:
    return bool(trial.values) and math.isfinite(trial.values[0])


def _importances(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """By PED-ANOVA (Watanabe et al. 2023), the greatest first; of parameters in every trial."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(complete) < _ENOUGH or len({trial.values[0] for trial in complete}) == 1:
        return {}
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def _history(axes: Any, trials: Sequence[FrozenTrial], record: StudyRecord) -> None:
    for state, colour in _COLOURS.items():
        chosen = [trial for trial in trials if trial.state is state]
        if chosen:
            points = [[t.number for t in chosen], [t.values[0] for t in chosen]]
            axes.scatter(*points, color=colour, label=state.name.lower(), s=18)
    better = max if record.direction == "maximize" else min
    best: list[float] = []
    for trial in trials:
        best.append(better([*best[-1:], trial.values[0]]))
    if best:
        axes.step([t.number for t in trials], best, where="post", color="tab:red", label="best")
        axes.legend()
    axes.set_xlabel("trial")
    axes.set_ylabel(record.metric)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _bars(axes: Any, importances: dict[str, float]) -> None:
    axes.set_title("importance", fontsize=10)
    if not importances:
        axes.text(0.5, 0.5, "more trials needed", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    names = list(reversed(importances))
    axes.barh(names, [importances[name] for name in names])


def _slice(axes: Any, trials: Sequence[FrozenTrial], name: str, record: StudyRecord) -> None:
    having = [trial for trial in trials if name in trial.params]
    values = [trial.params[name] for trial in having]
    words = any(isinstance(value, str | bool) for value in values)
    axes.scatter(
        list(map(str, values)) if words else values,
        [trial.values[0] for trial in having],
        c=[trial.number for trial in having],
        cmap="Blues",
        edgecolors="0.5",
        s=18,
    )
    if getattr(having[-1].distributions[name], "log", False):
        axes.set_xscale("log")
    elif not words and all(isinstance(value, int) for value in values):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(name)
    axes.set_ylabel(record.metric)
