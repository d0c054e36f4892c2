"""For scripts that stay with `keras_tuner.Tuner`: an Oracle that asks an Optuna study what to try.

One line of the script changes::

    tuner = keras_tuner.Tuner(
        oracle=OptunaOracle("val_accuracy", max_trials=20, study_name="digits", seed=1),
        hypermodel=build,
        directory="tuning",
        project_name="digits",
    )

The tuner runs its trials itself, as always. The study is an ordinary Optuna study in the database:
optuna-dashboard, `hpo dashboard` and `optuna.load_study` read it.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import keras_tuner
import optuna
from keras_tuner.engine import hyperparameters as kt
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpo.errors import StudyMismatchError, UsageError
from hpo.space.hyperparameters import parameter_of, qualified
from hpo.spec.models import Direction
from hpo.study.database import Database
from hpo.study.engines import prepare_sqlite
from hpo.study.schema import create_schema
from hpo.study.strategies import sampler_of
from hpo.study.studies import FOREIGN, study_names
from hpo.study.suggest import distribution_of, stored, suggest
from hpo.study.urls import masked

__all__ = ["OptunaOracle", "SamplerName"]

SamplerName = Literal["tpe", "random", "qmc", "nsgaii", "nsgaiii", "cmaes", "brute_force"]

_RUNNING, _STOPPED = "RUNNING", "STOPPED"
_ENDS = {"COMPLETED": TrialState.COMPLETE, "FAILED": TrialState.FAIL}


class OptunaOracle(keras_tuner.Oracle):
    """A KerasTuner oracle whose trials stand in an Optuna study.

    A parameter under conditions is named with them in the study, as in studies of `hpo`:
    `units[kind=mlp]`. What a build declares for the first time gets its default in that trial, as
    with every oracle of KerasTuner, and is searched from the next one on.

    Args:
        objective: As KerasTuner takes it: a metric's name, an `Objective`, a list of them, or None
            when `run_trial` returns a number to be minimized.
        max_trials: How many trials to try at most; those of the project that is reloaded count.
        storage: Database URL; tables are created where they are missing.
        study_name: Created, or gone on with when it is there: what its trials have found is known.
        sampler: A name, or an Optuna sampler.
        seed: A script with the same seed tries the same again; names of samplers only.
        options: All other arguments of `keras_tuner.Oracle`.

    Raises:
        UsageError: The storage or the sampler can't be used.
        StudyMismatchError: The study goes another direction, or belongs to a study file.
        StorageError: The database is out of reach.
    """

    def __init__(
        self,
        objective: Any = None,
        max_trials: int | None = 10,
        *,
        storage: str = "sqlite:///hpo.db",
        study_name: str = "kerastuner",
        sampler: SamplerName | optuna.samplers.BaseSampler = "tpe",
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(objective=objective, max_trials=max_trials, seed=seed, **options)
        _check_sampler(sampler)
        self._sampler = sampler
        self._study = _open_study(storage, study_name, self.objective)
        if not isinstance(sampler, str):
            self._study.sampler = sampler
        # KerasTuner's trial ids and Optuna's numbers.
        self._numbers: dict[str, int] = {}

    @property
    def study(self) -> optuna.Study:
        """The Optuna study behind this oracle."""
        return self._study

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values for a new trial, as KerasTuner asks for them."""
        if self._study._stop_flag:
            return {"status": _STOPPED, "values": None}
        if isinstance(self._sampler, str):
            number = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = sampler_of(self._sampler, {}, self.seed, number)
        trial = self._study.ask()
        trial.set_user_attr("kerastuner_trial", trial_id)
        trial.set_user_attr("kerastuner_project", self._project_dir)
        self._numbers[trial_id] = trial.number
        return {"status": _RUNNING, "values": self._suggest(trial)}

    def end_trial(self, trial: Any) -> None:
        """Takes the result in; unless the trial is to be retried, the study learns it."""
        try:
            super().end_trial(trial)
        finally:
            # Also when too many failures in a row end the search.
            self._tell_ended()

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "optuna_numbers": self._numbers}

    def set_state(self, state: dict[str, Any]) -> None:
        self._numbers = dict(state["optuna_numbers"])
        super().set_state(state)
        known = len(self._study.get_trials(deepcopy=False))
        if any(number >= known for number in self._numbers.values()):
            raise StudyMismatchError(
                f"the study {self._study.study_name!r} lacks trials of the KerasTuner project "
                f"{self._project_dir}; is the storage another one? Give the right one, or begin "
                "anew with overwrite=True"
            )
        self._tell_ended()
        self._drop_strays()

    def _record_values(self, trial: Any) -> None:
        # KerasTuner loses a value when another parameter of that name is inactive.
        hps, before = trial.hyperparameters, dict(trial.hyperparameters.values)
        super()._record_values(trial)
        kept = {name: value for name, value in before.items() if hps.is_active(name)}
        hps.values = hps.values | kept

    def _suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        chosen = kt.HyperParameters()
        for hp in self.hyperparameters.space:
            chosen.merge([hp])
            # Of two with one name whose conditions both hold, KerasTuner has the first one.
            if not chosen.is_active(hp) or _has_value(chosen, hp):
                continue
            chosen.values[hp.name] = (
                hp.value
                if isinstance(hp, kt.Fixed)
                else suggest(trial, qualified(hp), parameter_of(hp))
            )
        return dict(chosen.values)

    def _tell_ended(self) -> None:
        for trial_id in self.end_order:
            number = self._numbers.get(trial_id)
            if number is not None and not self._frozen(number).state.is_finished():
                self._tell(self.trials[trial_id], number)

    def _tell(self, trial: Any, number: int) -> None:
        state = _ENDS.get(trial.status, TrialState.FAIL)
        running = optuna.Trial(self._study, self._frozen(number)._trial_id)
        self._add_new_params(trial, running)
        for name in trial.metrics.metrics:
            value = trial.metrics.get_best_value(name)
            if value is not None and math.isfinite(value):
                running.set_user_attr(name, float(value))
        if trial.message:
            running.set_user_attr("reason", trial.message)
        value = float(trial.score) if state is TrialState.COMPLETE else None
        self._study.tell(number, value, state=state, skip_if_finished=True)

    def _add_new_params(self, trial: Any, running: optuna.Trial) -> None:
        """What the build has declared for the first time and so had its default."""
        hps, known = trial.hyperparameters, running.distributions
        for hp in hps.space:
            if isinstance(hp, kt.Fixed) or not hps.is_active(hp) or hp.name not in hps.values:
                continue
            parameter = parameter_of(hp)
            name, value = stored(qualified(hp), parameter, hps.values[hp.name])
            distribution = distribution_of(parameter)
            internal = distribution.to_internal_repr(value)
            if name not in known and distribution._contains(internal):
                self._study._storage.set_trial_param(
                    running._trial_id, name, internal, distribution
                )

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _drop_strays(self) -> None:
        """Ends trials that began when this project's script was killed, before it noted them."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            ours = trial.user_attrs.get("kerastuner_project") == self._project_dir
            if ours and trial.number not in self._numbers.values():
                self._study.tell(trial.number, state=TrialState.FAIL)


def _has_value(chosen: Any, hp: Any) -> bool:
    before = [each for each in chosen._hps[hp.name] if each.conditions != hp.conditions]
    return any(chosen.is_active(each) for each in before)


def _check_sampler(sampler: Any) -> None:
    names = get_args(SamplerName)
    if not isinstance(sampler, optuna.samplers.BaseSampler) and sampler not in names:
        raise UsageError(
            f"expected one of the samplers {', '.join(names)}, or an Optuna sampler; "
            f"received {sampler!r}"
        )


def _open_study(url: str, name: str, objective: Any) -> optuna.Study:
    database = Database(url, create=True)
    try:
        create_schema(database)
        if name in study_names(database):
            raise StudyMismatchError(
                f"the study {name!r} in {masked(url)} was made from a study file; "
                "choose another study_name"
            )
        storage = _storage(database)
    finally:
        database.close()
    direction: Direction = "maximize" if objective.direction == "max" else "minimize"
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction=direction,
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.NopPruner(),
    )
    if study.direction.name.lower() != direction:
        raise StudyMismatchError(
            f"the study {name!r} is there to {study.direction.name.lower()}, and the objective "
            f"{objective.name!r} to {direction}; choose another study_name"
        )
    with warnings.catch_warnings():
        # Optuna calls it experimental.
        warnings.simplefilter("ignore")
        study.set_metric_names([objective.name])
    study.set_user_attr(FOREIGN, "a script with keras_tuner.Tuner and OptunaOracle")
    # Samplers that have tried everything call study.stop(), which Optuna allows there only.
    study._thread_local.in_optimize_loop = True
    return study


def _storage(database: Database) -> RDBStorage:
    url = database.engine.url.render_as_string(hide_password=False)
    storage = RDBStorage(url.replace("{", "{{").replace("}", "}}"), skip_table_creation=True)
    if database.dialect == "sqlite":
        prepare_sqlite(storage.engine)
        storage.engine.dispose()
    return storage
