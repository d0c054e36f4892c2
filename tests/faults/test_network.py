"""Answers get lost and networks stall. The numbers are the rows of docs/faults.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import wait_for
from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec
from tests.faults.proxy import Proxy
from tests.servers import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def proxy(postgresql: Server) -> Iterator[Proxy]:
    made = Proxy(f"{postgresql.url.query['host']}/.s.PGSQL.5432")
    yield made
    made.close()


@pytest.fixture
def behind_proxy(postgresql_farm: Farm, proxy: Proxy) -> str:
    """The farm's database as it is reached through the proxy."""
    url = sa.make_url(postgresql_farm.url)
    through = url.set(host="127.0.0.1", port=proxy.port, query={})
    return through.render_as_string(hide_password=False)


def worker_through(farm: Farm, url: str, *options: str) -> None:
    direct, farm.url = farm.url, url
    farm.worker(*options)
    farm.url = direct


def test_row_13_commits_whose_acknowledgement_is_lost(
    postgresql_farm: Farm, proxy: Proxy, behind_proxy: str
) -> None:
    farm = postgresql_farm
    farm.submit(fake_spec(search={"trials": 6, "sampler": "random"}))
    proxy.lose_every(3)
    for _ in range(2):
        worker_through(farm, behind_proxy)
    farm.leave(240)
    for committed in ("COMMIT", "INSERT INTO trial_intermediate_values", "state = 'done'"):
        assert any(committed in statement for statement in proxy.lost)
    farm.check_end(interruptions=0)


def test_row_14_a_network_that_stalls_for_longer_than_the_lease(
    postgresql_farm: Farm, proxy: Proxy, behind_proxy: str, tmp_path: Path
) -> None:
    farm = postgresql_farm
    farm.submit(fake_spec(search={"trials": 3, "sampler": "random"}))
    worker_through(farm, behind_proxy, "--lease", "2")
    wait_for(lambda: farm.reports() >= 3)
    proxy.stall()
    farm.worker("--lease", "2")
    wait_for(lambda: farm.finished() == 3)
    proxy.resume()
    farm.leave()
    farm.check_end(interruptions=1)
    assert farm.query("SELECT count(*) FROM hpo_slots WHERE token = 2") == [(1,)]
