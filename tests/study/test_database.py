from __future__ import annotations

import gc
import socket
import sqlite3
import subprocess
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, InternalError, OperationalError

from hpo.errors import StorageError, StudyNotFoundError, UsageError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.engines import make_engine
from hpo.study.studies import create_schema, study_names
from hpo.study.trouble import is_transient
from hpo.study.urls import masked, parse_url
from tests.conftest import wait_for
from tests.servers import Open, Server
from tests.study.rooms import new_study, rows

NASTY = "p{0}@a:b/c%d"


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("sqlite:///a.db", "sqlite"),
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgres://u:p@h/d", "postgresql+psycopg"),
        ("mysql://u:p@h/d", "mysql+pymysql"),
        ("mariadb://u:p@h/d", "mysql+pymysql"),
        ("mariadb+mysqldb://u:p@h/d", "mysql+mysqldb"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg2"),
    ],
)
def test_url_gets_the_driver_that_comes_with_the_service(text: str, driver: str) -> None:
    assert parse_url(text).drivername == driver


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hpo.db", "not a database URL"),
        ("", "not a database URL"),
        ("postgresql://u:p@h:abc/d", "not a database URL"),
        ("postgresql://u:p@ss:w0rd@h/d", "percent-encoded"),
        ("postgresql://u:p@ss@h/d", "percent-encoded"),
        ("postgresql://h/d?user=u&password=w0rd", "user:password@host"),
        ("oracle://u:p@h/d", "'oracle'; expected one of sqlite, postgresql, mysql"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///hpo.db?timeout=5&foo=w0", r"takes no options; .* \?.*: timeout=5, foo=w0$"),
        ("postgresql://u:w0rd@h:99999/d", "the port 99999; expected one of 1 to 65535"),
    ],
)
def test_wrong_url_is_a_usage_error_that_keeps_the_secret(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_url(text)
    assert "w0rd" not in "".join(traceback.format_exception(caught.value))
    assert masked(text) == "(not a database URL)"


def test_unknown_driver_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown driver"):
        make_engine("postgresql+nodriver://u:p@h/d")


@pytest.mark.parametrize(
    "driver",
    [
        *("postgresql+asyncpg", "postgresql+psycopg_async", "mysql+aiomysql", "mysql+asyncmy"),
        "sqlite+aiosqlite",
    ],
)
def test_driver_for_asyncio_is_not_to_be_installed(driver: str) -> None:
    only = driver.partition("+")[0]
    with pytest.raises(UsageError, match=f"for asyncio.*; write {only}:// only$"):
        make_engine(f"{driver}://u:p@h/d" if only != "sqlite" else f"{driver}:///hpo.db")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:w0rd@127.0.0.1/d?foo=bar", 'foo=bar.*invalid connection option "foo"'),
        ("postgresql://u:w0rd@127.0.0.1/d?connect_timeout=abc", "connect_timeout=abc"),
        ("postgresql://u:w0rd@127.0.0.1/d?port=99999", "port=99999.*invalid port number"),
        ("postgresql://u:w0rd@127.0.0.1/d?sslmode=sure", "invalid sslmode value"),
        ("postgresql://u:w0rd@127.0.0.1/d?keepalives=abc", 'integer value "abc"'),
        ("postgresql://u:w0rd@/d?host=a&host=b&host=c&port=1&port=2", "host="),
        ("mysql://u:w0rd@h/d?foo=bar", "foo=bar.*unexpected keyword argument 'foo'"),
        ("mysql://u:w0rd@h/d?connect_timeout=abc", "connect_timeout=abc.*'abc'"),
        ("mysql://u:w0rd@h/d?charset=klingon", "charset=klingon"),
        ("mariadb://u:w0rd@h/d?ssl_ca=/no/ca.pem", "ssl_ca=/no/ca.pem.*No such file"),
    ],
)
def test_wrong_option_of_a_driver_is_a_usage_error_at_once(
    url: str, words: str, opened: Open
) -> None:
    with pytest.raises(UsageError, match=rf"{words}.*; mend what stands behind the \?") as caught:
        opened(url, patience=100).read(lambda connection: connection.execute(sa.select(1)))
    assert "w0rd" not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)


@pytest.fixture
def without_tls() -> Iterator[int]:
    """Port of a PostgreSQL that answers what such a server without TLS does: N."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(8)
                        connection.sendall(b"N")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_server_without_tls_is_not_waited_for(without_tls: int, opened: Open) -> None:
    database = opened(f"postgresql://u@127.0.0.1:{without_tls}/d?sslmode=require", patience=100)
    with pytest.raises(StorageError, match=r"can't be used: .* does not support SSL"):
        database.read(lambda connection: connection.execute(sa.select(1)))


def test_driver_that_is_not_installed_is_named() -> None:
    with pytest.raises(UsageError, match="pip install"):
        make_engine("postgresql+pg8000://u:p@h/d")


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_password_is_in_no_text(kind: str, opened: Open) -> None:
    url = f"{kind}://u:{quote(NASTY, safe='')}@127.0.0.1:1/d"
    database = opened(url, patience=0.1)
    with pytest.raises(StorageError) as caught:
        database.read(lambda connection: connection.execute(sa.select(1)))
    texts = [
        repr(database),
        repr(database.engine),
        masked(url),
        "".join(traceback.format_exception(caught.value)),
    ]
    for text in texts:
        assert NASTY not in text
        assert quote(NASTY, safe="") not in text
    assert "***" in repr(database)


def test_password_with_special_characters_opens_postgresql(
    postgresql: Server, locked_role: tuple[str, str], opened: Open
) -> None:
    role, password = locked_role
    url = postgresql.new_database()
    wrong = sa.make_url(url).set(username=role, password=f"{password}!")
    right = wrong.set(password=password)

    def refusal() -> str | None:
        # The server reads its new rules a little after it was told to.
        database = opened(wrong.render_as_string(hide_password=False))
        with suppress(StorageError):
            return database.read(lambda connection: None)
        with pytest.raises(StorageError) as caught:
            database.read(lambda connection: connection.execute(sa.select(1)))
        return str(caught.value)

    words = wait_for(refusal)
    assert "authentication failed" in words
    assert password not in words
    database = opened(right.render_as_string(hide_password=False))
    create_schema(database)
    assert new_study(database).name == "digits"
    database.close()
    postgresql.drop(url)


@pytest.fixture
def set_read_only(postgresql: Server) -> Iterator[Callable[[str], None]]:
    """Makes PostgreSQL take no writes ("on"), as a standby, and take them again ("off")."""

    def set_read_only(value: str) -> None:
        postgresql.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        postgresql.execute("SELECT pg_reload_conf()")
        # The server reads its new rules a little after it was told to.
        wait_for(lambda: postgresql.execute("SHOW default_transaction_read_only") == value)

    yield set_read_only
    set_read_only("off")


def test_a_postgresql_that_takes_no_writes_for_a_while_is_waited_for(
    postgresql: Server, opened: Open, set_read_only: Callable[[str], None]
) -> None:
    """A standby that is about to lead, say: nothing is wrong with what was asked."""
    url = postgresql.new_database()
    database = opened(url, patience=60.0)
    create_schema(database)
    new_study(database)
    set_read_only("on")
    refused = 0

    def write(connection: sa.Connection) -> None:
        nonlocal refused
        try:
            connection.execute(t.hpo_studies.update().values(reason="written"))
        except InternalError:
            refused += 1
            if refused == 3:
                set_read_only("off")
            raise

    # A connection may follow the new rules later than another one.
    wait_for(lambda: database.write(write) or refused > 0)
    assert refused >= 3
    assert rows(database, t.hpo_studies)[0]["reason"] == "written"
    database.close()
    postgresql.drop(url)


def test_missing_sqlite_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFoundError, match=r"no database file .*hpo submit"):
        Database(f"sqlite:///{tmp_path / 'typo.db'}")
    assert list(tmp_path.iterdir()) == []


def test_sqlite_file_deleted_meanwhile_is_not_created(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "hpo.db"
    path.touch()
    database = opened(f"sqlite:///{path}", patience=0.2)
    path.unlink()
    with pytest.raises(StorageError, match="unable to open database file"):
        study_names(database)
    assert list(tmp_path.iterdir()) == []


def test_sqlite_folder_deleted_meanwhile_is_told(tmp_path: Path, opened: Open) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    database = opened(f"sqlite:///{folder / 'hpo.db'}", create=True)
    folder.rmdir()
    with pytest.raises(StorageError, match=rf"its folder {folder} does not exist") as caught:
        study_names(database)
    assert "check that it runs" not in str(caught.value)


def test_sqlite_in_a_folder_that_can_t_be_written(small_disk: Path, opened: Open) -> None:
    database = opened(f"sqlite:///{small_disk / 'hpo.db'}", create=True)
    create_schema(database)
    database.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UsageError, match=rf"the folder {small_disk} .* can't be written; choose"):
        Database(f"sqlite:///{small_disk / 'new.db'}", create=True)
    with pytest.raises(StorageError, match=rf"its folder {small_disk} can't be written"):
        study_names(opened(f"sqlite:///{small_disk / 'hpo.db'}"))


@pytest.fixture
def without_rights(server: Server) -> Iterator[str]:
    """URL of a database with its tables, for a user who may do nothing with them."""
    url = server.new_database(schema=True)
    poor = sa.make_url(url).set(username="poor", password="poor")
    if server.url.get_backend_name() == "postgresql":
        user = "poor"
        server.execute("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    else:
        user = "poor@'127.0.0.1'"
        server.execute(f"CREATE USER {user} IDENTIFIED BY 'poor'")
        server.execute(f"GRANT SELECT ON {poor.database}.hpo_workers TO {user}")
    yield poor.render_as_string(hide_password=False)
    server.drop(url)
    server.execute(f"DROP USER {user}")


def test_missing_rights_are_named(without_rights: str, opened: Open) -> None:
    database = opened(without_rights, patience=100)
    query = sa.text("SELECT * FROM studies")
    with pytest.raises(StorageError, match=r"can't be used: .* denied .*; have its owner GRANT"):
        database.read(lambda connection: connection.execute(query))
    with pytest.raises(StorageError, match=r"can't be used: .*; have its owner GRANT"):
        create_schema(database)
    with warnings.catch_warnings():
        # Optuna has left its connection to the garbage collector.
        warnings.simplefilter("ignore")
        gc.collect()


def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the folder of the database file"):
        Database(f"sqlite:///{tmp_path / 'no' / 'hpo.db'}", create=True)


def test_creating_touches_no_file_before_the_first_transaction(
    tmp_path: Path, opened: Open
) -> None:
    opened(f"sqlite:///{tmp_path / 'hpo.db'}", create=True)
    assert list(tmp_path.iterdir()) == []


def test_reading_leaves_somebody_elses_file_as_it_is(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    assert study_names(opened(f"sqlite:///{path}")) == []
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_is_no_database_is_told_at_once(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "text.db"
    path.write_text("hello" * 200)
    with pytest.raises(StorageError, match="can't be used: file is not a database"):
        study_names(opened(f"sqlite:///{path}"))


@pytest.mark.parametrize("name", ["a b 100%{x}.db", "ä#?.db"])
def test_sqlite_file_may_have_any_name(name: str, tmp_path: Path, opened: Open) -> None:
    url = f"sqlite:///{tmp_path}/{name}"
    if "?" in name:
        url = url.replace("?", "%3F")
    database = opened(url, create=True)
    create_schema(database)
    new_study(database)
    again = opened(url)
    assert study_names(again) == ["digits"]


def test_sqlite_pragmas(sqlite_database: Database) -> None:
    def pragmas(connection: sa.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return {n: connection.exec_driver_sql(f"PRAGMA {n}").scalar() for n in names}

    found = sqlite_database.read(pragmas)
    assert found == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "busy_timeout": 60_000,
    }


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "mariadb"])
def test_unreachable_server_is_told_within_the_patience(kind: str, opened: Open) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        database = opened(f"{kind}://u:secret@127.0.0.1:{taken.getsockname()[1]}/d")
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"out of reach.*--storage") as caught:
            database.read(lambda connection: connection.execute(sa.select(1)), patience=0.5)
        # That of the database itself is longer.
        assert time.monotonic() - began < database.patience
    assert caught.value.exit_code == 5
    assert "secret" not in str(caught.value)


def test_work_is_repeated_until_the_trouble_is_over(database: Database) -> None:
    calls = []

    def work(connection: sa.Connection) -> int:
        calls.append(1)
        if len(calls) < 4:
            raise OperationalError("x", {}, sqlite3.OperationalError("the server is starting up"))
        return int(connection.execute(sa.select(sa.literal(7))).scalar_one())

    assert database.write(work) == 7
    assert len(calls) == 4


def test_permanent_trouble_is_not_repeated(database: Database) -> None:
    calls = []

    def work(connection: sa.Connection) -> None:
        calls.append(1)
        raise OperationalError("x", {}, sqlite3.OperationalError("access denied for user"))

    with pytest.raises(StorageError, match="can't be used"):
        database.write(work)
    assert len(calls) == 1


def test_errors_of_the_work_itself_pass_through(database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        raise IntegrityError("x", {}, sqlite3.IntegrityError("UNIQUE constraint failed"))

    with pytest.raises(IntegrityError):
        database.write(work)
    with pytest.raises(ZeroDivisionError):
        database.write(lambda connection: 1 // 0)


def test_failed_work_leaves_nothing(database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("INSERT INTO studies (study_name) VALUES ('half')"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.write(work)
    count = sa.text("SELECT count(*) FROM studies")
    assert database.read(lambda connection: connection.execute(count).scalar_one()) == 0


def test_is_transient_tells_waiting_from_giving_up() -> None:
    def error(words: str) -> OperationalError:
        return OperationalError("x", {}, sqlite3.OperationalError(words))

    assert is_transient(error("database is locked"))
    assert is_transient(error("connection refused"))
    assert not is_transient(error('FATAL: database "x" does not exist'))
    assert not is_transient(error("fe_sendauth: no password supplied"))
    assert not is_transient(ValueError("x"))


def test_killed_connection_is_replaced(server: Server, opened: Open) -> None:
    url = server.new_database(schema=True)
    database = opened(url)
    record = new_study(database)
    connections = server.connections(url)
    assert connections
    for connection in connections:
        server.kill(connection)
    assert study_names(database) == [record.name]
    database.close()
    server.drop(url)


def test_connection_killed_inside_the_work_is_replaced(server: Server, opened: Open) -> None:
    url = server.new_database(schema=True)
    database = opened(url)
    killed: list[int] = []

    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("INSERT INTO studies (study_name) VALUES ('one')"))
        if not killed:
            killed.append(connection.execute(sa.text(server.connection_id)).scalar_one())
            server.kill(killed[0])

    database.write(work)
    count = sa.text("SELECT count(*) FROM studies")
    assert database.read(lambda connection: connection.execute(count).scalar_one()) == 1
    database.close()
    server.drop(url)


def test_a_server_that_takes_no_writes_for_a_while(postgresql: Server, opened: Open) -> None:
    url = postgresql.new_database(schema=True)
    database = opened(url)
    setting = f"DATABASE {sa.make_url(url).database} SET default_transaction_read_only"
    postgresql.execute(f"ALTER {setting} = on")
    insert = sa.text("INSERT INTO studies (study_name) VALUES ('one')")
    with pytest.raises(StorageError, match=r"is out of reach: .* read-only transaction"):
        database.write(lambda connection: connection.execute(insert), patience=0.2)
    calls = []

    def work(connection: sa.Connection) -> None:
        calls.append(1)
        if len(calls) == 3:
            postgresql.execute(f"ALTER {setting} = off")
        connection.execute(insert)

    database.write(work)
    # The third connection was made before.
    assert len(calls) == 4
    database.close()
    postgresql.drop(url)


def test_a_transaction_that_waited_too_long_is_repeated(postgresql: Server, opened: Open) -> None:
    url = postgresql.new_database(schema=True)
    database = opened(url)
    calls = []

    def work(connection: sa.Connection) -> None:
        calls.append(1)
        own = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        if len(calls) == 1:
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '10ms'"))
            wait_for(lambda: own not in postgresql.connections(url))
        connection.execute(sa.text("INSERT INTO studies (study_name) VALUES ('one')"))

    database.write(work)
    assert len(calls) == 2
    database.close()
    postgresql.drop(url)


def test_abandoned_transaction_ends_by_itself(postgresql: Server, opened: Open) -> None:
    database = opened(postgresql.url.render_as_string(hide_password=False))
    query = sa.text("SHOW idle_in_transaction_session_timeout")
    assert database.read(lambda connection: connection.execute(query).scalar_one()) == "1min"
