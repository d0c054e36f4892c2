"""A look at a study."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path

import click

from hpo.cli.options import (
    artifacts_option,
    find_study,
    json_option,
    opened,
    project_option,
    storage_option,
)
from hpo.console import print_best, print_json, print_table
from hpo.launch.places import artifacts_place, storage_url


@click.command()
@click.argument("study", required=False)
@json_option
@project_option
@storage_option
def status(study: str | None, as_json: bool, project: Path, storage: str | None) -> None:
    """Show where STUDY stands; the name may be left out when there is one only."""
    from hpo.study.snapshot import take_snapshot

    with opened(storage_url(storage, project)) as database:
        snapshot = take_snapshot(database, find_study(database, study))
    if as_json:
        print_json(asdict(snapshot) | {"finished": snapshot.finished})
        return
    from hpo.watch.tables import status_table

    print_table(status_table(snapshot))


@click.command()
@click.argument("study", required=False)
@json_option
@project_option
@storage_option
def best(study: str | None, as_json: bool, project: Path, storage: str | None) -> None:
    """Show the best configuration of STUDY so far."""
    with opened(storage_url(storage, project)) as database:
        print_best(database, find_study(database, study), as_json)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--allow-write", is_flag=True, help="Let visitors change and delete studies.")
@artifacts_option
@project_option
@storage_option
def dashboard(
    host: str,
    port: int,
    allow_write: bool,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> None:
    """Serve optuna-dashboard on the storage, read-only; Ctrl-C ends it."""
    url = storage_url(storage, project)
    with opened(url) as database:
        from hpo.watch.dashboard import dashboard_app, make_dashboard_server

        folder = artifacts_place(artifacts, project)
        app = dashboard_app(database, folder, allow_write=allow_write)
        # SIGTERM as Ctrl-C: who leaves in order stops an embedded database behind itself.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with make_dashboard_server(app, host, port) as server:
            click.echo(f"http://{host}:{server.server_port}/")
            server.serve_forever()
