"""What only a MySQL or MariaDB server can do to us."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import quote

import optuna
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DataError

from hpo.errors import StorageError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.mysql import check_version
from hpo.study.studies import create_schema, study_names
from tests.servers import MariaDB, Open
from tests.study.rooms import new_study

NASTY = "p{0}@a:b/c%d?e#f"


@pytest.fixture
def url(mariadb: MariaDB) -> Iterator[str]:
    made = mariadb.new_database(schema=True)
    yield made
    mariadb.drop(made)


@pytest.fixture
def keeper(mariadb: MariaDB) -> Iterator[str]:
    mariadb.execute(rf"CREATE USER keeper@'127.0.0.1' IDENTIFIED BY '{NASTY}'".replace(":", r"\:"))
    mariadb.execute("GRANT ALL ON *.* TO keeper@'127.0.0.1'")
    yield "keeper"
    mariadb.execute("DROP USER keeper@'127.0.0.1'")


def test_password_with_special_characters_opens_mariadb(
    mariadb: MariaDB, keeper: str, opened: Open
) -> None:
    url = mariadb.new_database()
    place = url.partition("@")[2]
    wrong = opened(f"mariadb://{keeper}:{quote(NASTY + '!', safe='')}@{place}")
    with pytest.raises(StorageError, match="can't be used: Access denied") as caught:
        create_schema(wrong)
    assert NASTY not in str(caught.value)
    right = opened(f"mariadb://{keeper}:{quote(NASTY, safe='')}@{place}")
    create_schema(right)
    assert new_study(right).name == "digits"
    mariadb.drop(url)


def test_missing_database_is_told_at_once(mariadb: MariaDB, opened: Open) -> None:
    missing = mariadb.url.set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(StorageError, match="can't be used: Unknown database 'nowhere'"):
        study_names(opened(missing, patience=60))


def test_session_does_not_depend_on_the_server(url: str, opened: Open) -> None:
    names = ("time_zone", "sql_mode", "tx_isolation", "character_set_client", "wait_timeout")
    query = sa.text("SELECT " + ", ".join(f"@@{name}" for name in names))
    found = opened(url).read(lambda connection: connection.execute(query).one())
    modes = "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"
    assert tuple(found) == ("+00:00", modes, "READ-COMMITTED", "utf8mb4", 60)


def test_deadlock_is_tried_again(url: str, opened: Open) -> None:
    database = opened(url)
    records = [new_study(database, name=name) for name in ("one", "two")]
    barrier = threading.Barrier(2)
    tries: list[str] = []

    def run(first: int, second: int) -> None:
        def work(connection: sa.Connection) -> None:
            tries.append("try")
            for place, index in enumerate((first, second)):
                row = t.hpo_studies.c.study_id == records[index].study_id
                values = {"trials": t.hpo_studies.c.trials + 1}
                connection.execute(t.hpo_studies.update().where(row).values(values))
                if place == 0 and len(tries) <= 2:
                    barrier.wait(20)

        database.write(work)

    threads = [threading.Thread(target=run, args=pair) for pair in ((0, 1), (1, 0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tries) == 3
    query = sa.select(t.hpo_studies.c.trials)
    assert database.read(lambda c: c.execute(query).scalars().all()) == [5, 5]


def test_lock_that_is_held_too_long_is_trouble_that_passes(url: str, opened: Open) -> None:
    database, other = opened(url), opened(url)
    new_study(database)
    tries = 0

    def lock(connection: sa.Connection) -> None:
        nonlocal tries
        tries += 1
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
        if tries == 3:
            holding.rollback()
        connection.execute(sa.select(t.studies).with_for_update())

    with other.engine.connect() as holding:
        holding.execute(sa.select(t.studies).with_for_update())
        with pytest.raises(StorageError, match="out of reach: Lock wait timeout exceeded"):
            database.write(lock, patience=0)
        database.write(lock, patience=60)
    assert tries == 3


def test_text_that_is_too_long_is_not_cut(url: str, opened: Open) -> None:
    row = {"worker": "w" * 201, "study_id": 1, "host": "h", "pid": 1}
    moments = {"started_at": 0.0, "seen_at": 0.0}
    insert = t.hpo_workers.insert().values(**row, **moments)
    with pytest.raises(DataError, match="too long"):
        opened(url).write(lambda connection: connection.execute(insert))


def test_tables_of_plain_optuna_are_adapted_with_what_they_hold(
    mariadb: MariaDB, opened: Open
) -> None:
    url = mariadb.new_database()
    storage = optuna.storages.RDBStorage(url)
    theirs = optuna.create_study(storage=storage, study_name="theirs")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    before = theirs.get_trials()
    storage.remove_session()
    database = opened(url)
    create_schema(database)
    new_study(database, name="Theirs")
    assert theirs.get_trials() == before
    theirs.set_user_attr("long", "x" * 100_000)
    assert _attribute(database) == 100_002
    storage.remove_session()
    storage.engine.dispose()
    mariadb.drop(url)


def _attribute(database: Database) -> int:
    query = sa.select(sa.func.length(t.study_user_attributes.c.value_json))
    return int(database.read(lambda connection: connection.execute(query).scalar_one()))


@pytest.mark.parametrize(
    ("mariadb_server", "version", "words"),
    [
        (True, (10, 5, 20), "MariaDB 10.5.20; expected 10.6"),
        (True, (10, 6), None),
        (False, (5, 7, 44), "MySQL 5.7.44; expected 8.0.17"),
        (False, (8, 0, 17), None),
    ],
)
def test_servers_that_can_not_skip_locked_rows_are_refused(
    mariadb_server: bool, version: tuple[int, ...], words: str | None
) -> None:
    dialect = SimpleNamespace(is_mariadb=mariadb_server, server_version_info=version)
    if words is None:
        check_version(dialect)
        return
    with pytest.raises(StorageError, match=words):
        check_version(dialect)
