"""Runs the builder with the values of past trials: what the study would have sampled for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.space.values import fits, in_words
from hpo.spec import StudySpec
from hpo.spec.models import Parameter, Scalar
from hpo.training.bench import Bench, build_model, few_rows, prepare
from hpo.training.dry_fit import dry_fit
from hpo.training.past import PastTrial, Replay
from hpo.usercode import describe


class _UnfitError(Exception):
    """The past trial is none of this study's."""


def replay(spec: StudySpec, project: Path, trials: list[PastTrial]) -> list[Replay]:
    """Each trial as one of the study, in the given order.

    Raises:
        DataError, BuilderError: The study can't be trained here.
    """
    bench = prepare(spec, project)
    bench = Bench(spec, few_rows(bench.data), bench.builder)
    return [_replay(bench, trial) for trial in trials]


def _replay(bench: Bench, trial: PastTrial) -> Replay:
    params: dict[str, tuple[Parameter, Scalar]] = {}

    def suggest(name: str, parameter: Parameter) -> Scalar:
        value = _past_value(name, parameter, trial.values)
        params[name] = (parameter, value)
        return value

    try:
        built = build_model(bench, suggest, seed=0)
        if bench.builder.own_fit is not None:
            dry_fit(bench, built)
        _check_same(built.values.taken | built.hp.values, trial.values)
    except _UnfitError as error:
        return Replay(trial.trial_id, {}, str(error))
    except HpoError as error:
        return Replay(trial.trial_id, {}, str(error))
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        return Replay(trial.trial_id, {}, f"the builder raised {describe(error)}")
    return Replay(trial.trial_id, params)


def _past_value(name: str, parameter: Parameter, values: dict[str, Any]) -> Scalar:
    # The study names a conditional parameter with its conditions.
    plain = name if name in values else name.partition("[")[0]
    if plain not in values:
        raise _UnfitError(f"it has no value for {name!r}, which the study samples")
    value: Scalar = values[plain]
    if not fits(value, parameter):
        raise _UnfitError(f"{plain} is {value!r}, the study wants {in_words(parameter)}")
    return value


def _check_same(here: dict[str, Any], past: dict[str, Any]) -> None:
    for name, value in past.items():
        if name not in here:
            raise _UnfitError(f"neither builder nor study file asks for its parameter {name!r}")
        if here[name] != value:
            raise _UnfitError(f"{name} is {value!r}, the study has it fixed to {here[name]!r}")
