"""Where files of trials lie, and which of them are removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from hpo.study.database import Database
from hpo.study.leases import TrialWrites
from hpo.study.schema import create_schema
from hpo.study.studies import StudyRecord, open_study
from hpo.worker.paths import StudyPaths
from tests.study.rooms import COMPLETE, claimed, new_study, slots_of

Made = Callable[[str], tuple[Database, StudyRecord]]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """A study in a database of its own."""
    with ExitStack() as stack:

        def make(name: str) -> tuple[Database, StudyRecord]:
            database = Database(f"sqlite:///{tmp_path / name}", create=True)
            stack.enter_context(closing(database))
            create_schema(database)
            return database, new_study(database, trials=5)

        yield make


def paths_of(record: StudyRecord, folder: Path) -> StudyPaths:
    return StudyPaths(folder, record.name, folder, record.mark)


def end_all(database: Database, record: StudyRecord, folder: Path) -> set[str]:
    """Ends every trial and tidies; the folders of all studies' trials."""
    slots, paths = slots_of(database, record), paths_of(record, folder)
    for number in range(record.trials):
        lease = claimed(slots)
        Path(paths.trial(number)).mkdir(parents=True)
        slots.write(lease, TrialWrites(values={1: float(number)}), COMPLETE)
    paths.keep_best(database, record, slots)
    return {path.name for path in Path(paths.folder).iterdir()}


def test_studies_of_one_name_leave_each_others_trials(tmp_path: Path, made: Made) -> None:
    database, record = made("one.db")
    other_database, other = made("two.db")
    assert record.name == other.name
    assert paths_of(record, tmp_path).trial(3) != paths_of(other, tmp_path).trial(3)
    assert open_study(database, record.name).mark == record.mark
    kept = end_all(database, record, tmp_path)
    assert len(kept) == 3
    assert len(end_all(other_database, other, tmp_path)) == 6
    both = {path.name for path in (tmp_path / record.name).iterdir()}
    assert kept < both


def test_a_study_from_before_there_were_marks(tmp_path: Path, made: Made) -> None:
    database, record = made("old.db")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_system_attributes WHERE key = 'hpo:mark'")
    old = open_study(database, record.name)
    assert old == dataclasses.replace(record, mark=None)
    assert Path(paths_of(old, tmp_path).trial(12)).name == "trial-00012"
    Path(paths_of(record, tmp_path).trial(0)).mkdir(parents=True)
    left = end_all(database, old, tmp_path)
    assert left == {f"trial-0000{number}" for number in (0, 1, 2)} | {f"trial-00000-{record.mark}"}
