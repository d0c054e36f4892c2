"""What the window of the TPE sampler costs in quality: Optuna's TPE on all trials against ours.

Functions to minimize, in memory, with several seeds and windows. Run from the root:

    python -m benchmarks.window --trials 1500 --recent 250 500 --seeds 5

A table goes to stderr, one line of JSON for each run to stdout.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import optuna

from hpo.study.tpe import WindowTPESampler
from hpo.study.window import RECENT

_DIMENSIONS = 5


def sphere(trial: optuna.Trial) -> float:
    return sum((value - 1) ** 2 for value in _floats(trial))


def rosenbrock(trial: optuna.Trial) -> float:
    pairs = itertools.pairwise(_floats(trial))
    return sum(100 * (after - before**2) ** 2 + (1 - before) ** 2 for before, after in pairs)


def rastrigin(trial: optuna.Trial) -> float:
    values = _floats(trial)
    return sum(value**2 - 10 * math.cos(2 * math.pi * value) + 10 for value in values)


def branches(trial: optuna.Trial) -> float:
    """A choice that decides which other parameters there are, as a depth or an optimizer does."""
    x = trial.suggest_float("x", -3.0, 5.0)
    branch = trial.suggest_categorical("branch", ["a", "b", "c", "d", "e"])
    own = [trial.suggest_float(f"{branch}{index}", -3.0, 5.0) for index in range(3)]
    # The branches are nearly equally good, so none is given up early.
    return 0.1 * "abcde".index(branch) + (x - 1) ** 2 + sum((value - 1) ** 2 for value in own)


def _floats(trial: optuna.Trial) -> list[float]:
    return [trial.suggest_float(f"x{index}", -3.0, 5.0) for index in range(_DIMENSIONS)]


FUNCTIONS: dict[str, Callable[[optuna.Trial], float]] = {
    "sphere": sphere,
    "rosenbrock": rosenbrock,
    "rastrigin": rastrigin,
    "branches": branches,
}


def run(name: str, recent: int | None, seed: int, trials: int) -> dict[str, Any]:
    """One search; its best value, the median of its last hundred, and the CPU time of its end."""
    options: dict[str, Any] = {"multivariate": True, "group": True, "seed": seed}
    sampler = (
        optuna.samplers.TPESampler(**options)
        if recent is None
        else WindowTPESampler(recent=recent, **options)
    )
    study = optuna.create_study(sampler=sampler)
    study.optimize(FUNCTIONS[name], n_trials=trials - 100)
    start = time.process_time()
    study.optimize(FUNCTIONS[name], n_trials=100)
    seconds = time.process_time() - start
    last = [trial.value for trial in study.get_trials(deepcopy=False)[-100:]]
    return {
        "function": name,
        "seed": seed,
        "trials": trials,
        "recent": recent,
        "best": study.best_value,
        "last_median": statistics.median(value for value in last if value is not None),
        "cpu_ms_per_trial": round(10 * seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="TPE on a window against TPE on all trials.")
    parser.add_argument("--trials", type=int, default=1_500)
    parser.add_argument(
        "--recent", type=int, nargs="+", default=[RECENT], help="trials in the window"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rows = []
    for seed in range(arguments.seeds):
        for name in arguments.functions:
            for recent in (None, *arguments.recent):
                row = run(name, recent, seed, arguments.trials)
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(f"{'':22}{'best':>10}{'last 100':>10}{'CPU ms':>8}   (medians)", file=sys.stderr)
    for name in arguments.functions:
        for recent in (None, *arguments.recent):
            same = [row for row in rows if (row["function"], row["recent"]) == (name, recent)]
            figures = [
                statistics.median(row[key] for row in same)
                for key in ("best", "last_median", "cpu_ms_per_trial")
            ]
            best, last, milliseconds = figures
            print(
                f"{name:12}{recent or 'all':<10}{best:10.4g}{last:10.4g}{milliseconds:8.1f}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
