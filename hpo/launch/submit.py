"""From a study file to a study in the database: everything is checked before anything exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpo.data.report import DataReport
from hpo.errors import StudyNotFoundError
from hpo.spec import StudyFile, StudySpec, load_study_file
from hpo.spec.models import PythonSource
from hpo.study.database import Database
from hpo.study.schema import create_schema, rehearse_schema
from hpo.study.snapshot import take_snapshot
from hpo.study.strategies import check_strategies
from hpo.study.studies import (
    Facts,
    StudyRecord,
    create_study,
    open_study,
    spec_differences,
)
from hpo.study.urls import parse_url
from hpo.training.findings import Preflight
from hpo.worker.trainers import Trainers


@dataclass(frozen=True)
class Validated:
    """A study file that can become a study here."""

    spec: StudySpec
    preflight: Preflight

    @property
    def facts(self) -> Facts:
        found = self.preflight
        return Facts(
            data=found.signature.fingerprint,
            builder=found.builder_hash,
            optuna=found.optuna_major,
            keras=found.keras_major,
            signature=found.signature.to_json(),
        )


def validate(path: Path, project: Path, trainers: Trainers) -> Validated:
    """Checks a study file, its data and its builder.

    Raises:
        StudyFileError, DataError, BuilderError: With every problem that was found.
    """
    return _validate(load_study_file(path), project, trainers)


def _validate(file: StudyFile, project: Path, trainers: Trainers) -> Validated:
    _check_options(file)
    # What it leaves of data in files the workers' trainers map; a function they call themselves.
    trainer = trainers.start(leading=isinstance(file.spec.data.source, PythonSource))
    try:
        preflight: Preflight = trainer.call(
            "hpo.training.preflight:check_study",
            spec=file.spec,
            project=project,
            shared=trainers.shared,
        )
    finally:
        trainer.kill()
    if preflight.problems:
        found = (file.problem(p.path, p.message, at_key=True) for p in preflight.problems)
        raise file.error(*found)
    return Validated(file.spec, preflight)


def read_data(path: Path, project: Path, plots: Path | None, trainers: Trainers) -> DataReport:
    """What a study file's data is; plots go to a folder, if one is given.

    Raises:
        StudyFileError, DataError: The file or the data is wrong.
    """
    spec = load_study_file(path).spec
    trainer = trainers.start()
    try:
        report: DataReport = trainer.call(
            "hpo.data.report:report_data", data=spec.data, project=project, plots=plots
        )
    finally:
        trainer.kill()
    return report


def _check_options(file: StudyFile) -> None:
    errors = check_strategies(file.spec)
    if errors:
        raise file.error(*(file.problem(e.path, e.message, at_key=True) for e in errors))


def submit(
    path: Path, url: str, project: Path, trainers: Trainers, warn: Callable[[str], None]
) -> StudyRecord:
    """Creates the study of a study file, or opens it when it is there and the same.

    Raises:
        StudyFileError, DataError, BuilderError: With every problem that was found.
        StudyMismatchError: A study of this name is there and differs.
    """
    parse_url(url)
    return submit_file(load_study_file(path), url, project, trainers, warn)


def submit_file(
    file: StudyFile,
    url: str,
    project: Path,
    trainers: Trainers,
    warn: Callable[[str], None],
    patience: float = 10.0,
) -> StudyRecord:
    """As `submit`, for a study file that was read.

    A study that is finished is opened without looking at data and builder: nothing will run.

    Args:
        warn: Told what a person should look at.
        patience: Seconds to wait for a database that is away.

    Raises:
        StorageError: The database has stayed away.
        StudyMismatchError: A study of this name is there and differs.
    """
    spec = file.spec
    known = _known(url, spec, patience)
    if known is not None and known.finished:
        return known.record
    # While the first trainer is importing Keras.
    rehearse_schema()
    validated = _validate(file, project, trainers)
    for words in validated.preflight.warnings:
        warn(words)
    database = Database(url, create=True, patience=patience)
    try:
        create_schema(database)
        record = create_study(database, spec, validated.facts)
        if known is None:
            _leave_note(database, record)
        return record
    finally:
        database.close()


@dataclass(frozen=True)
class _Known:
    record: StudyRecord
    finished: bool


def _known(url: str, spec: StudySpec, patience: float) -> _Known | None:
    """The study of this name, if there is one; `finished` also says that it is the same."""
    try:
        database = Database(url, patience=patience)
    except StudyNotFoundError:
        # Opened here and closed, so that a mistyped storage fails before the long checks.
        Database(url, create=True).close()
        return None
    try:
        record = open_study(database, spec.name)
        same = not spec_differences(record.spec, spec) and spec.search.trials == record.trials
        return _Known(record, same and take_snapshot(database, record).state == "finished")
    except StudyNotFoundError:
        return None
    finally:
        database.close()


def _leave_note(database: Database, record: StudyRecord) -> None:
    """A note on the study in the dashboard: how to join in and how to take the model out."""
    from hpo.study.notes import save_study_note

    text = f"""\
Hyperparameter search of **{record.name}**: {record.direction} `{record.metric}`,
{record.trials} trials.

Join with another worker, from the project folder and with `HPO_STORAGE` set to this database:

    hpo worker {record.name}

Take out the best model:

    hpo export {record.name}
"""
    save_study_note(database, record.study_id, text)
