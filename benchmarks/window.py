"""What the window of the TPE sampler costs in quality: Optuna's TPE on all trials against ours.

Functions to minimize with five float parameters, in memory, with several seeds and windows. Run
from the root:

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
from collections.abc import Callable, Sequence
from typing import Any

import optuna

from hpo.study.tpe import WindowTPESampler
from hpo.study.window import RECENT

_DIMENSIONS = 5


def sphere(x: Sequence[float]) -> float:
    return sum((value - 1) ** 2 for value in x)


def rosenbrock(x: Sequence[float]) -> float:
    pairs = itertools.pairwise(x)
    return sum(100 * (after - before**2) ** 2 + (1 - before) ** 2 for before, after in pairs)


def rastrigin(x: Sequence[float]) -> float:
    return sum(value**2 - 10 * math.cos(2 * math.pi * value) + 10 for value in x)


FUNCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sphere": sphere,
    "rosenbrock": rosenbrock,
    "rastrigin": rastrigin,
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

    def objective(trial: optuna.Trial) -> float:
        x = [trial.suggest_float(f"x{index}", -3.0, 5.0) for index in range(_DIMENSIONS)]
        return FUNCTIONS[name](x)

    study.optimize(objective, n_trials=trials - 100)
    start = time.process_time()
    study.optimize(objective, n_trials=100)
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
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rows = []
    for seed in range(arguments.seeds):
        for name in FUNCTIONS:
            for recent in (None, *arguments.recent):
                row = run(name, recent, seed, arguments.trials)
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(f"{'':22}{'best':>10}{'last 100':>10}{'CPU ms':>8}   (medians)", file=sys.stderr)
    for name in FUNCTIONS:
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
