"""A random storm of kills, stops and database restarts; row 24 of docs/faults.md."""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec
from tests.faults.test_outages import (
    Outage,
    outage,  # noqa: F401 - a fixture, as those below
    outage_farm,  # noqa: F401
    outage_server,  # noqa: F401
)

pytestmark = [pytest.mark.slow, pytest.mark.long]

_SECONDS = 60
_TRIALS = 40
# Four workers need longer than the storm lasts, also when nothing disturbs them.
_EPOCH_SECONDS = 0.8


@pytest.mark.parametrize("seed", range(int(os.environ.get("STORM_SEEDS", "1"))))
def test_row_24_storm(outage: Outage, outage_farm: Farm, seed: int) -> None:  # noqa: F811
    farm, draw = outage_farm, random.Random(seed)
    model = {"builder": "fake:fake", "args": {"seconds": _EPOCH_SECONDS}}
    farm.submit(fake_spec(model=model, search={"trials": _TRIALS, "sampler": "random"}))
    crew = farm.workers(4)
    interruptions, deadline = 0, time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        time.sleep(draw.uniform(0.2, 1.5))
        what = draw.choice(["kill", "kill", "stop", "restart"])
        if what == "restart":
            outage.stop()
            time.sleep(draw.uniform(0.0, 2.0))
            outage.start()
            # Costs no epoch: each is saved before it is reported.
            continue
        index = draw.randrange(len(crew))
        if what == "kill":
            crew[index].kill()
        else:
            crew[index].terminate()
        crew[index].communicate()
        crew[index] = farm.worker()
        interruptions += 1
    farm.workers(2)
    farm.leave(240)
    farm.check_end(interruptions)
