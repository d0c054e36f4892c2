"""Workers on an embedded PostgreSQL, whose server starts with the first and ends with the last."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.study.embedded import cluster_at
from hpo.study.urls import parse_url
from tests.conftest import wait_for
from tests.faults.conftest import Farm
from tests.faults.fake import fake_spec
from tests.study.test_embedded import server_of

pytestmark = pytest.mark.slow


@pytest.fixture
def embedded_farm(embedded_folder: Path, tmp_path: Path) -> Iterator[Farm]:
    """Its study is there; this process has left the server again."""
    farm = Farm(f"embedded:{embedded_folder}", tmp_path)
    farm.submit(fake_spec())
    leave(farm)
    assert server_of(embedded_folder) is None
    yield farm
    for process in farm.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()
    leave(farm)


def leave(farm: Farm) -> None:
    cluster_at(Path(parse_url(farm.url).database or "")).leave()


def test_one_worker_is_killed_and_the_last_one_stops_the_server(
    embedded_farm: Farm, embedded_folder: Path
) -> None:
    farm = embedded_farm
    victim, _ = farm.workers(2)
    wait_for(lambda: len(farm.epochs_run()) >= 10)
    victim.kill()
    farm.leave()
    assert server_of(embedded_folder) is None
    farm.check_end(interruptions=1)


def test_the_server_is_killed_under_its_workers(embedded_farm: Farm, embedded_folder: Path) -> None:
    farm = embedded_farm
    farm.workers(3)
    for epochs in (10, 40):
        wait_for(lambda enough=epochs: len(farm.epochs_run()) >= enough)
        server = server_of(embedded_folder)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        wait_for(lambda old=server: server_of(embedded_folder) not in (None, old))
    farm.leave()
    assert server_of(embedded_folder) is None
    farm.check_end(interruptions=0)
