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
from hpo.errors import UsageError
from hpo.launch.places import artifacts_place, storage_url

# The page takes seconds to draw them, and a minute for 10,000.
_TRIALS = 2000


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
@click.option(
    "--trials",
    type=click.IntRange(min=4),
    help=f"Show so many of a larger study's trials.  [default: {_TRIALS}; with --allow-write all]",
)
@artifacts_option
@project_option
@storage_option
def dashboard(
    host: str,
    port: int,
    allow_write: bool,
    trials: int | None,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> None:
    """Serve optuna-dashboard on the storage, read-only; Ctrl-C ends it."""
    if allow_write and trials is not None:
        raise UsageError(
            "--trials does not go with --allow-write: who may change a study, its note for "
            "instance, sees the whole of it; leave out one of them"
        )
    url = storage_url(storage, project)
    with opened(url) as database:
        from hpo.watch.dashboard import dashboard_app, make_dashboard_server

        folder = artifacts_place(artifacts, project)
        most = None if allow_write else trials or _TRIALS
        app = dashboard_app(database, folder, allow_write=allow_write, most=most)
        # SIGTERM as Ctrl-C: who leaves in order stops an embedded database behind itself.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with make_dashboard_server(app, host, port) as server:
            click.echo(f"http://{host}:{server.server_port}/")
            server.serve_forever()
