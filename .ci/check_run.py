"""Holds what `make run` left behind against what it promises; exits 1 with what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    command = [ROOT / ".venv" / "bin" / "hpo", "status", "digits-mlp", "--json"]
    status = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    bundle = ROOT / "bundles" / "digits-mlp"
    accuracy = json.loads((bundle / "metrics.json").read_text())["test"]["accuracy"]
    promises = {
        "the study is finished": status["state"] == "finished",
        "exactly 40 trials": status["finished"] == status["trials"] == 40,
        "none is running": status["running"] == status["waiting"] == 0,
        "some are pruned": status["pruned"] > 0,
        "test accuracy of 0.95 or more": accuracy >= 0.95,
        "the model is there": (bundle / "model.keras").is_file(),
    }
    broken = [promise for promise, holds in promises.items() if not holds]
    if broken:
        sys.exit(f"make run: not so: {'; '.join(broken)} ({status}, accuracy {accuracy})")


if __name__ == "__main__":
    main()
