from __future__ import annotations

import sqlalchemy as sa

from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.schema import create_schema
from hpo.study.studies import study_names
from tests.servers import Open
from tests.study.rooms import new_study, race


def _create(_index: int, url: str) -> list[str]:
    database = Database(url, create=True)
    create_schema(database)
    tables = database.read(lambda connection: sa.inspect(connection).get_table_names())
    database.close()
    return sorted(tables)


def test_eight_processes_may_race_on_an_empty_database(database_url: str, opened: Open) -> None:
    found = race(_create, database_url)
    assert all(tables == found[0] for tables in found)
    assert {*t.metadata.tables, *t.optuna_metadata.tables} < set(found[0])
    database = opened(database_url)
    versions = sa.text("SELECT count(*) FROM alembic_version")
    assert database.read(lambda connection: connection.execute(versions).scalar_one()) == 1
    new_study(database)


def test_existing_schema_and_studies_stay(database: Database) -> None:
    new_study(database)
    create_schema(database)
    assert study_names(database) == ["digits"]
