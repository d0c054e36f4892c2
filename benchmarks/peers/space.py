"""The search space, in the two ways in which the contestants ask for values.

Optuna and Ray Tune's OptunaSearch call `suggest`, KerasTuner and this project `declare`. Both ask
for the same; tests/benchmarks/test_peers.py holds them against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras_tuner
    import optuna


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Asks an Optuna trial."""
    values: dict[str, Any] = {"depth": trial.suggest_int("depth", 1, 3)}
    for i in range(values["depth"]):
        values[f"units_{i}"] = trial.suggest_int(f"units_{i}", 16, 256, log=True)
    values["dropout"] = trial.suggest_float("dropout", 0.0, 0.5)
    values["batchnorm"] = trial.suggest_categorical("batchnorm", [False, True])
    values["learning_rate"] = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    values["optimizer"] = trial.suggest_categorical("optimizer", ["adam", "sgd"])
    return values


def declare(hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Asks KerasTuner's HyperParameters."""
    values: dict[str, Any] = {"depth": hp.Int("depth", 1, 3)}
    for i in range(values["depth"]):
        values[f"units_{i}"] = hp.Int(f"units_{i}", 16, 256, sampling="log")
    values["dropout"] = hp.Float("dropout", 0.0, 0.5)
    values["batchnorm"] = hp.Boolean("batchnorm")
    values["learning_rate"] = hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    values["optimizer"] = hp.Choice("optimizer", ["adam", "sgd"])
    return values
