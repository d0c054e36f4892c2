"""Databases for tests."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa

from hpo.study.database import Database
from hpo.study.studies import create_schema

Open = Callable[..., Database]
Plain = Callable[[Database], optuna.storages.RDBStorage]

_NUMBER = itertools.count()


class Server(ABC):
    """One database server, with a database for each test.

    Attributes:
        url: Of the server itself, with all rights.
        connection_id: SQL for the number of the connection that asks.
    """

    url: sa.URL
    connection_id: str

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        self._template = self.new_database()
        database = Database(self._template)
        create_schema(database)
        database.close()

    def execute(self, statement: str) -> Any:
        with self._engine.connect() as connection:
            result = connection.execute(sa.text(statement))
            return result.scalar() if result.returns_rows else None

    def new_database(self, *, schema: bool = False) -> str:
        """URL of a new database; with `schema` it has its tables and no study."""
        name = f"room_{next(_NUMBER)}"
        self._create(name, sa.make_url(self._template).database if schema else None)
        return self.url.set(database=name).render_as_string(hide_password=False)

    def close(self) -> None:
        self._engine.dispose()

    @abstractmethod
    def _create(self, name: str, template: str | None) -> None: ...

    @abstractmethod
    def drop(self, url: str) -> None: ...

    @abstractmethod
    def kill(self, connection: int) -> None:
        """Ends a connection of somebody else."""

    @abstractmethod
    def connections(self, url: str) -> list[int]:
        """Numbers of the connections to the database."""

    def _column(self, statement: str) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(sa.text(statement)).scalars())


class PostgreSQL(Server):
    connection_id = "SELECT pg_backend_pid()"

    def __init__(self, uri: str, folder: Path) -> None:
        self.folder = folder
        super().__init__(sa.make_url(uri).set(drivername="postgresql+psycopg"))
        for setting in ("fsync", "synchronous_commit"):
            self.execute(f"ALTER SYSTEM SET {setting} = off")
        self.execute("SELECT pg_reload_conf()")

    def _create(self, name: str, template: str | None) -> None:
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}")

    def drop(self, url: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {sa.make_url(url).database} WITH (FORCE)")

    def kill(self, connection: int) -> None:
        self.execute(f"SELECT pg_terminate_backend({connection})")

    def connections(self, url: str) -> list[int]:
        name = sa.make_url(url).database
        return self._column(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")


class MariaDB(Server):
    """A private mariadbd that ends with this process, whatever becomes of it."""

    connection_id = "SELECT connection_id()"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hpo-mariadb-"))
        self._dump: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = _start_mariadbd(self._folder, port)
        super().__init__(sa.make_url(f"mysql+pymysql://tester:tester@127.0.0.1:{port}"))

    @staticmethod
    def installed() -> bool:
        return all(map(_program, ("mariadbd", "mariadb-install-db")))

    def _create(self, name: str, template: str | None) -> None:
        # Not the character set that is wanted: what the server's default is must not matter.
        self.execute(f"CREATE DATABASE {name} CHARACTER SET latin1")
        if template is None:
            return
        self._dump = self._dump or self._dumped(template)
        connection = self._engine.raw_connection()
        with connection.cursor() as cursor:
            for statement in (f"USE {name}", "SET foreign_key_checks = 0", *self._dump):
                cursor.execute(statement)
        connection.invalidate()

    def _dumped(self, name: str) -> list[str]:
        """Statements that make the tables and their rows again."""
        with self._engine.connect() as connection:
            tables = list(connection.exec_driver_sql(f"SHOW TABLES FROM {name}").scalars())
            made = [
                connection.exec_driver_sql(f"SHOW CREATE TABLE {name}.{table}").one()[1]
                for table in tables
            ]
        filled = ("alembic_version", "version_info")
        return made + [f"INSERT INTO {table} SELECT * FROM {name}.{table}" for table in filled]

    def drop(self, url: str) -> None:
        for connection in self.connections(url):
            with suppress(sa.exc.DBAPIError):
                self.kill(connection)
        self.execute(f"DROP DATABASE IF EXISTS {sa.make_url(url).database}")

    def kill(self, connection: int) -> None:
        self.execute(f"KILL {connection}")

    def connections(self, url: str) -> list[int]:
        name = sa.make_url(url).database
        return self._column(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'")

    def close(self) -> None:
        super().close()
        self._process.communicate(timeout=30)
        shutil.rmtree(self._folder, ignore_errors=True)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def _start_mariadbd(folder: Path, port: int) -> subprocess.Popen[bytes]:
    mariadbd, install = _program("mariadbd"), _program("mariadb-install-db")
    assert mariadbd is not None
    assert install is not None
    # The server refuses to be root unless it is told to.
    user = ["--user=root"] if os.geteuid() == 0 else []
    data = [f"--datadir={folder / 'data'}", *user]
    subprocess.run(
        [install, "--no-defaults", *data, "--skip-test-db"], check=True, capture_output=True
    )
    setup = folder / "setup.sql"
    setup.write_text(
        "CREATE USER tester@'127.0.0.1' IDENTIFIED BY 'tester';\n"
        "GRANT ALL ON *.* TO tester@'127.0.0.1' WITH GRANT OPTION;\n"
    )
    command = [
        mariadbd,
        "--no-defaults",
        *data,
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder / 'socket'}",
        f"--pid-file={folder / 'pid'}",
        f"--log-error={folder / 'log.err'}",
        f"--init-file={setup}",
        "--skip-name-resolve",
        "--default-time-zone=-07:00",
        "--innodb-flush-method=nosync",
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-innodb-doublewrite",
    ]
    # The shell reads until this process closes the pipe, which it does however it ends.
    until_closed = '"$@" & read -r _; kill $!; wait $!'
    process = subprocess.Popen(
        ["sh", "-c", until_closed, "sh", *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    log = folder / "log.err"
    while not (log.exists() and "ready for connections" in log.read_text()):
        if time.monotonic() > end:
            raise RuntimeError(f"mariadbd did not start, see {log}")
        time.sleep(0.05)
    return process
