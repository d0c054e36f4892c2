"""What several commands share: options, the database, trainers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpo.artifacts import Place, open_artifacts
from hpo.console import print_exported, say
from hpo.errors import StudyNotFoundError, UsageError
from hpo.launch.places import DB_TIMEOUT, bundle_folder

if TYPE_CHECKING:
    from hpo.study.database import Database
    from hpo.study.studies import StudyRecord


F = TypeVar("F", bound=Callable[..., Any])

# Address of a fork server that another command on this machine owns.
FORKSERVER = "HPO_FORKSERVER"

# Resolved, because trainers do not start in the folder of the command.
FILE = click.Path(path_type=Path, resolve_path=True)
FOLDER = click.Path(path_type=Path, file_okay=False, resolve_path=True)


class _Artifacts(click.ParamType[str]):
    """A folder, or a URL that fsspec knows."""

    name = "folder or URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        place = open_artifacts(str(value))
        # A URL stays as it is: written out again, it would lack its host or password.
        return str(FOLDER.convert(place, param, ctx)) if isinstance(place, Path) else str(value)


def storage_option(function: F) -> F:
    return click.option(
        "--storage",
        envvar="HPO_STORAGE",
        metavar="URL",
        help="Database URL, or embedded for a PostgreSQL in PROJECT/hpo-postgresql; HPO_STORAGE "
        "keeps a password off the command line.  [default: sqlite:///PROJECT/hpo.db]",
    )(function)


def project_option(function: F) -> F:
    return click.option(
        "--project",
        type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
        default=Path(),
        help="Folder that builder and data are resolved from.  [default: here]",
    )(function)


def artifacts_option(function: F) -> F:
    return click.option(
        "--artifacts",
        envvar="HPO_ARTIFACTS",
        type=_Artifacts(),
        metavar="DIR|URL",
        help="Folder or URL (s3://bucket/prefix) of checkpoints and pictures, the same for all "
        "workers.  [default: PROJECT/artifacts]",
    )(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
lease_option = click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help="Seconds without a sign of life after which a trial is taken over.",
)
db_timeout_option = click.option(
    "--db-timeout",
    type=click.FloatRange(min=0),
    default=DB_TIMEOUT,
    show_default=True,
    help="Seconds to wait for a database that is away.",
)


@contextmanager
def opened(
    url: str, patience: float = 10.0, hurry: threading.Event | None = None
) -> Iterator[Database]:
    """The database, closed at the end."""
    from hpo.study.database import Database

    database = Database(url, patience=patience, hurry=hurry)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def trainers_of_command() -> Iterator[Any]:
    """Where trainers come from; a fork server that was started for them ends with the command."""
    from hpo.worker.forking import FORKING
    from hpo.worker.forkserver import start_forkserver

    address = os.environ.get(FORKSERVER)
    with ExitStack() as stack:
        if address is None and FORKING:
            # First of all: it imports Keras while this process imports the rest.
            address = stack.enter_context(closing(start_forkserver())).address
        from hpo.worker.trainers import Trainers

        yield stack.enter_context(closing(Trainers(address)))


def find_study(database: Database, study: str | None) -> StudyRecord:
    """The study of this name, or the only one there is.

    Raises:
        StudyNotFoundError: There is no such study.
        UsageError: There are several, and none is named.
    """
    from hpo.study.studies import open_study, study_names
    from hpo.study.urls import masked

    if study is not None:
        return open_study(database, study)
    names = study_names(database)
    if len(names) > 1:
        raise UsageError(f"there are several studies, name one of: {', '.join(names)}")
    if not names:
        raise StudyNotFoundError(
            f"there is no study in {masked(database.url)} yet; check --storage (or HPO_STORAGE), "
            "or create one with: hpo submit STUDY_FILE"
        )
    return open_study(database, names[0])


def export_and_print(
    database: Database,
    record: StudyRecord,
    project: Path,
    artifacts: Place,
    out: Path | None,
    trainers: Any,
) -> None:
    """Writes the best model to its bundle, and says so."""
    from hpo.export.exporting import export_best
    from hpo.study.snapshot import best_trial

    # Raises before anything is said to be under way.
    best_trial(database, record)
    say("exporting the best model ...")
    folder = bundle_folder(out, project, record.name)
    exported = export_best(database, record, project, artifacts, folder, trainers)
    print_exported(exported, record)
