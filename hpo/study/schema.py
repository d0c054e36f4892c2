"""The schema: Optuna's tables and ours, created once and by many at the same time."""

from __future__ import annotations

import functools

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from hpo.errors import HpoError, StorageError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.mysql import adapt_optuna_tables, check_version
from hpo.study.trouble import explained, lacks_rights
from hpo.study.urls import masked

_ATTEMPTS = 20
# Names differ by case and accents also where the server's default has it otherwise.
_MYSQL_TABLE = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


@functools.cache
def rehearse_schema() -> None:
    """Creates Optuna's tables in memory, once, for those who have to wait anyway.

    Half a second's worth of imports and compiled statements is there afterwards.
    """
    from optuna.storages import RDBStorage

    RDBStorage("sqlite://").engine.dispose()


def create_schema(database: Database) -> None:
    """Creates Optuna's tables and ours where they are missing; safe to race.

    Raises:
        StorageError: The database stayed away for longer than its patience, or its tables belong
            to another Optuna.
    """
    from optuna.exceptions import StorageInternalError

    # CREATE TABLE IF NOT EXISTS is no lock: whoever comes second may fail, and finds all there
    # on the next attempt.
    racing = Retrying(
        retry=retry_if_exception(_may_be_a_race),
        wait=wait_random(0.05, 0.3),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    try:
        racing(_create, database)
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise _refusal(error, database.url) from None


def _may_be_a_race(error: BaseException) -> bool:
    from optuna.exceptions import StorageInternalError

    cause = _cause(error)
    if isinstance(cause, DBAPIError) and lacks_rights(cause):
        return False
    return isinstance(error, SQLAlchemyError | StorageInternalError)


def _cause(error: BaseException) -> BaseException:
    """Optuna has its own words around some errors of SQLAlchemy's."""
    from optuna.exceptions import StorageInternalError

    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _refusal(error: Exception, url: str) -> HpoError:
    cause = _cause(error)
    told = explained(cause, url) if isinstance(cause, DBAPIError) else None
    reason = next(iter(str(cause).splitlines()), type(cause).__name__)
    advice = "; are there tables of another program's?" if isinstance(cause, DBAPIError) else ""
    words = f"the tables could not be created in {masked(url)}: {reason}{advice}"
    return told or StorageError(words)


def _create(database: Database) -> None:
    from optuna.storages import RDBStorage

    # Waits for a database that is away, and tells a wrong password or a missing database in our
    # words, before Optuna meets it.
    database.write(lambda connection: connection.execute(sa.select(1)))
    if database.dialect == "mysql":
        check_version(database.engine.dialect)
    url = database.engine.url.render_as_string(hide_password=False)
    # Optuna formats the URL, so braces in a password must be doubled.
    url = url.replace("{", "{{").replace("}", "}}")
    options = {"connect_args": {"timeout": 60}} if database.dialect == "sqlite" else {}
    storage = RDBStorage(url, engine_kwargs=options)
    if database.dialect == "mysql":
        # On Optuna's connection, which waits as long as a big table takes.
        with storage.engine.begin() as connection:
            adapt_optuna_tables(connection)
        for table in t.metadata.sorted_tables:
            # Here and not with the table: it makes SQLAlchemy import all of its MySQL modules.
            table.kwargs.update(_MYSQL_TABLE)
    storage.engine.dispose()
    database.write(t.metadata.create_all)
