"""The `hpo` command: parses, calls, prints. Nothing but this and `hpo.console` prints or exits.

What needs Optuna, SQLAlchemy or rich is imported inside the commands, so `hpo --help` is quick.
Data goes to stdout, progress and logs to stderr.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpo import __version__
from hpo.artifacts import Place, open_artifacts
from hpo.console import (
    error_console,
    hide_passwords_from_ps,
    log_to_stderr,
    print_best,
    print_checks,
    print_data,
    print_exported,
    print_json,
    print_prediction,
    print_table,
    say,
    warn,
    without_passwords,
)
from hpo.errors import HpoError, UsageError
from hpo.launch.places import artifacts_place, storage_url

if TYPE_CHECKING:
    from hpo.study.database import Database
    from hpo.study.studies import StudyRecord

F = TypeVar("F", bound=Callable[..., Any])

# Address of a fork server that another command on this machine owns.
_FORKSERVER = "HPO_FORKSERVER"

# Resolved, because trainers do not start in the folder of the command.
_FILE = click.Path(path_type=Path, resolve_path=True)
_FOLDER = click.Path(path_type=Path, file_okay=False, resolve_path=True)


class _Artifacts(click.ParamType[str]):
    """A folder, or a URL that fsspec knows."""

    name = "folder or URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        place = open_artifacts(str(value))
        # A URL stays as it is: written out again, it would lack its host or password.
        return str(_FOLDER.convert(place, param, ctx)) if isinstance(place, Path) else str(value)


def main() -> None:
    """Runs a command; every error becomes one message and its exit code."""
    hide_passwords_from_ps()
    try:
        code = cli(standalone_mode=False)
    except HpoError as error:
        click.echo(f"error: {without_passwords(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)
        click.echo(without_passwords(words.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has gone, as in `hpo status --json | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _storage_option(function: F) -> F:
    return click.option(
        "--storage",
        envvar="HPO_STORAGE",
        metavar="URL",
        help="Database URL, or embedded for a PostgreSQL in PROJECT/hpo-postgresql; HPO_STORAGE "
        "keeps a password off the command line.  [default: sqlite:///PROJECT/hpo.db]",
    )(function)


def _project_option(function: F) -> F:
    return click.option(
        "--project",
        type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
        default=Path(),
        help="Folder that builder and data are resolved from.  [default: here]",
    )(function)


def _artifacts_option(function: F) -> F:
    return click.option(
        "--artifacts",
        envvar="HPO_ARTIFACTS",
        type=_Artifacts(),
        metavar="DIR|URL",
        help="Folder or URL (s3://bucket/prefix) of checkpoints and pictures, the same for all "
        "workers.  [default: PROJECT/artifacts]",
    )(function)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_lease_option = click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="Seconds without a sign of life after which a trial is taken over.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpo")
def cli() -> None:
    """Hyperparameter optimization for Keras: launch workers, watch the study, export the model."""


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--no-export", is_flag=True, help="Leave out the export at the end.")
@click.option("--out", type=_FOLDER, help="Bundle folder.  [default: PROJECT/bundles/STUDY]")
@_lease_option
@_artifacts_option
@_project_option
@_storage_option
def run(
    file: Path,
    workers: int,
    no_export: bool,
    out: Path | None,
    lease: float,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> int:
    """Submit the study FILE, work on it with local workers, export the best model.

    Run again, it goes on where it stopped.
    """
    from hpo.launch.local import LaunchOptions
    from hpo.launch.running import work_through
    from hpo.launch.submit import submit as submit_study
    from hpo.watch.progress import progress_display
    from hpo.worker.signals import INTERRUPTED, interruptible
    from hpo.worker.trainers import Trainers

    url, artifacts = storage_url(storage, project), artifacts or str(project / "artifacts")
    trainers = Trainers(os.environ.get(_FORKSERVER))
    try:
        say(f"checking {file} ...")
        record = submit_study(file, url, project, trainers, warn)
        options = LaunchOptions(
            record.name, url, project, artifacts, workers, lease, trainers.address
        )
        with _opened(url) as database:
            with interruptible() as interruption, progress_display(error_console()) as display:
                end = work_through(database, record, options, interruption, display.show)
            if end.interrupted:
                say(
                    f"interrupted; {end.snapshot.finished} of {end.snapshot.trials} trials are "
                    "finished. The same command goes on from here."
                )
                return INTERRUPTED
            say(f"the study {record.name!r} is finished: {end.snapshot.trials} trials")
            if no_export:
                print_best(database, record)
            else:
                _export(
                    database, record, project, artifacts_place(artifacts, project), out, trainers
                )
    finally:
        trainers.close()
    return 0


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@_project_option
@_storage_option
def submit(file: Path, project: Path, storage: str | None) -> None:
    """Check the study FILE and create the study, without working on it."""
    from hpo.launch.submit import submit as submit_study

    with _trainers() as trainers:
        record = submit_study(file, storage_url(storage, project), project, trainers, warn)
    click.echo(record.name)
    say(f"{record.trials} trials; start workers with: hpo worker {record.name}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@_project_option
@_json_option
def validate(file: Path, project: Path, as_json: bool) -> None:
    """Check the study FILE with its data and builder; nothing is created."""
    from hpo.launch.submit import validate as validate_file

    with _trainers() as trainers:
        found = validate_file(file, project, trainers).preflight
    if as_json:
        parameters = {name: each.model_dump() for name, each in found.parameters.items()}
        data = json.loads(found.signature.to_json())
        content = {"data": data, "parameters": parameters, "metrics": found.metrics}
        print_json(content | {"warnings": found.warnings})
        return
    for words in found.warnings:
        warn(words)
    train, validation, test = found.signature.rows
    click.echo(
        f"{file} is valid: {found.signature.task} on {train} rows "
        f"({validation} for validation, {test} for test)"
    )
    click.echo(f"the builder asks for: {', '.join(found.parameters)}")
    click.echo(f"each epoch reports: {', '.join(found.metrics)}")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--plots", type=_FOLDER, help="Draw targets, columns and samples into this folder.")
@_project_option
@_json_option
def data(file: Path, plots: Path | None, project: Path, as_json: bool) -> None:
    """Show what is read as the data of the study FILE; no builder is needed."""
    from hpo.launch.submit import read_data

    with _trainers() as trainers:
        report = read_data(file, project, plots, trainers)
    for words in report.signature.warnings:
        warn(words)
    print_data(report, as_json)
    for path in report.files:
        say(f"drawn: {path}")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from hpo.spec import study_schema_text

    click.echo(study_schema_text(), nl=False)


@cli.command()
@click.argument("study")
@click.option("--threads", type=click.IntRange(min=1), help="Cores for its trainer.  [all]")
@click.option("--with-parent", is_flag=True, hidden=True, help="Leave when stdin closes.")
@click.option("--name", hidden=True, help="Unlike any other worker's.")
@click.option(
    "--db-timeout",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds to wait for a database that is away.",
)
@_lease_option
@_artifacts_option
@_project_option
@_storage_option
def worker(
    study: str,
    threads: int | None,
    with_parent: bool,
    name: str | None,
    db_timeout: float,
    lease: float,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> int:
    """Work on STUDY until no trial is left; Ctrl-C gives the trial in flight back."""
    from hpo.launch.local import available_cores
    from hpo.worker.loop import Worker, WorkerOptions
    from hpo.worker.signals import INTERRUPTED, interruptible
    from hpo.worker.trainers import Trainers

    log_to_stderr(logging.WARNING if with_parent else logging.INFO)
    options = WorkerOptions(
        project, artifacts_place(artifacts, project), lease, threads or available_cores()
    )
    trainers = Trainers(os.environ.get(_FORKSERVER))
    with interruptible() as interruption:
        if with_parent:
            _stop_with_stdin(interruption.stop)
        try:
            with _opened(storage_url(storage, project), db_timeout, interruption.stop) as database:
                record = _find(database, study)
                Worker(database, record, options, trainers, interruption.stop, name).run()
        finally:
            trainers.close()
    return INTERRUPTED if interruption.by_user else 0


@cli.command()
@click.argument("study", required=False)
@_json_option
@_project_option
@_storage_option
def status(study: str | None, as_json: bool, project: Path, storage: str | None) -> None:
    """Show where STUDY stands; the name may be left out when there is one only."""
    from hpo.study.snapshot import take_snapshot

    with _opened(storage_url(storage, project)) as database:
        snapshot = take_snapshot(database, _find(database, study))
    if as_json:
        print_json(asdict(snapshot) | {"finished": snapshot.finished})
        return
    from hpo.watch.tables import status_table

    print_table(status_table(snapshot))


@cli.command()
@click.argument("study", required=False)
@_json_option
@_project_option
@_storage_option
def best(study: str | None, as_json: bool, project: Path, storage: str | None) -> None:
    """Show the best configuration of STUDY so far."""
    with _opened(storage_url(storage, project)) as database:
        print_best(database, _find(database, study), as_json)


@cli.command()
@click.argument("study", required=False)
@click.option("--out", type=_FOLDER, help="Bundle folder.  [default: PROJECT/bundles/STUDY]")
@_artifacts_option
@_project_option
@_storage_option
def export(
    study: str | None,
    out: Path | None,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> None:
    """Write the best model of STUDY with its config and metrics to a folder."""
    with _opened(storage_url(storage, project)) as database, _trainers() as trainers:
        record = _find(database, study)
        _export(database, record, project, artifacts_place(artifacts, project), out, trainers)


@cli.command()
@click.argument("bundle", type=_FOLDER)
@click.argument("file", type=_FILE)
@click.option("--array", default="x", show_default=True, help="Array in a .npz file.")
@_json_option
def predict(bundle: Path, file: Path, array: str, as_json: bool) -> None:
    """Predict each row of FILE (.npz, .npy or .csv of raw features) with the BUNDLE's model."""
    with _trainers() as trainers:
        trainer = trainers.start()
        rows = trainer.call(
            "hpo.export.predict:predict_file", bundle=bundle, file=file, array=array
        )
        trainer.kill()
    for row in rows:
        print_prediction(row, as_json)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--allow-write", is_flag=True, help="Let visitors change and delete studies.")
@_artifacts_option
@_project_option
@_storage_option
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
    with _opened(url) as database:
        from hpo.watch.dashboard import dashboard_app, make_dashboard_server

        folder = artifacts_place(artifacts, project)
        app = dashboard_app(database, folder, allow_write=allow_write)
        # SIGTERM as Ctrl-C: who leaves in order stops an embedded database behind itself.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with make_dashboard_server(app, host, port) as server:
            click.echo(f"http://{host}:{server.server_port}/")
            server.serve_forever()


@cli.command()
@click.argument("study", required=False)
@_project_option
@_storage_option
def stop(study: str | None, project: Path, storage: str | None) -> None:
    """Stop STUDY: its workers give their trials back and leave."""
    from hpo.study.studies import stop_study

    with _opened(storage_url(storage, project)) as database:
        record = _find(database, study)
        stop_study(database, record, "stopped with hpo stop")
    say(f"stopped {record.name!r}; go on with: hpo resume {record.name}")


@cli.command()
@click.argument("study", required=False)
@_project_option
@_storage_option
def resume(study: str | None, project: Path, storage: str | None) -> None:
    """Let workers go on with a stopped STUDY."""
    from hpo.study.studies import resume_study

    with _opened(storage_url(storage, project)) as database:
        record = _find(database, study)
        resume_study(database, record)
    say(f"{record.name!r} goes on; start workers with: hpo worker {record.name}")


@cli.command()
@_json_option
@_artifacts_option
@_project_option
@_storage_option
def doctor(as_json: bool, artifacts: str | None, project: Path, storage: str | None) -> int:
    """Check database, artifacts, packages and machine; nothing is created."""
    from hpo.launch.doctor import examine

    checks = list(examine(storage_url(storage, project), artifacts_place(artifacts, project)))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_checks(checks)
    return 1 if any(check.state == "problem" for check in checks) else 0


@contextmanager
def _opened(
    url: str, patience: float = 10.0, hurry: threading.Event | None = None
) -> Iterator[Database]:
    from hpo.study.database import Database

    database = Database(url, patience=patience, hurry=hurry)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _trainers() -> Iterator[Any]:
    from hpo.worker.trainers import Trainers

    trainers = Trainers(os.environ.get(_FORKSERVER))
    try:
        yield trainers
    finally:
        trainers.close()


def _find(database: Database, study: str | None) -> StudyRecord:
    from hpo.study.studies import open_study, study_names

    if study is not None:
        return open_study(database, study)
    names = study_names(database)
    if len(names) > 1:
        raise UsageError(f"there are several studies, name one of: {', '.join(names)}")
    return open_study(database, names[0] if names else "(any)")


def _export(
    database: Database,
    record: StudyRecord,
    project: Path,
    artifacts: Place,
    out: Path | None,
    trainers: Any,
) -> None:
    from hpo.export.exporting import export_best

    say("exporting the best model ...")
    folder = out or project / "bundles" / record.name
    exported = export_best(database, record, project, artifacts, folder, trainers)
    print_exported(exported, record)


def _stop_with_stdin(stop: threading.Event) -> None:
    def wait() -> None:
        # Not through sys.stdin, whose lock would still be held when the interpreter shuts down.
        os.read(0, 1)
        stop.set()

    threading.Thread(target=wait, daemon=True, name="parent").start()
