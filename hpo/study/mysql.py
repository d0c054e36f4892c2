"""What MySQL and MariaDB need; they speak one protocol and differ in little that matters here."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from hpo.errors import StorageError
from hpo.study import tables as t

# The errors that pass: too many connections (1040, 1203, 1226), a server on its way down or up
# (1053, 1079), a table that somebody else has just created or is changing (1050, 1412, 1684), a
# broken network (1158-1161), lock wait timeout (1205), deadlock (1213), a server that has turned
# read-only for a failover (1290, 1836), a killed query or connection (1317, 1927, 4031), and the
# client's own words for a server that is away (20xx; 0 stands for a connection that is closed).
TRANSIENT = frozenset(
    {0, 1040, 1050, 1053, 1079, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1290, 1317, 1412}
    | {1684, 1836, 1927, 2002, 2003, 2005, 2006, 2013, 2014, 2055, 4031}
)

# SKIP LOCKED, and for MySQL a cast to double.
_OLDEST_MARIADB = (10, 6)
_OLDEST_MYSQL = (8, 0, 17)

_CONNECT_OPTIONS = {
    "charset": "utf8mb4",
    "connect_timeout": 5,
    # A server that has gone without a word; longer than any lock is waited for.
    "read_timeout": 30,
    "write_timeout": 30,
}
# time_zone: the clock must not jump when summer ends. sql_mode: too long a text is an error,
# whatever the server was told, and never cut. wait_timeout: a machine that loses power inside a
# transaction must not hold its locks for hours.
_IDLE_SECONDS = 60
_SESSION = (
    "SET SESSION time_zone = '+00:00', "
    "sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', "
    "innodb_lock_wait_timeout = 20, lock_wait_timeout = 20, "
    f"wait_timeout = {_IDLE_SECONDS}"
)


def make_mysql_engine(url: sa.URL) -> sa.Engine:
    """An engine whose transactions read what is committed, and whose sessions are all alike."""
    options = {key: value for key, value in _CONNECT_OPTIONS.items() if key not in url.query}
    engine = sa.create_engine(
        url,
        pool_size=2,
        # Claims count and skip rows; REPEATABLE READ would also lock the gaps between them.
        isolation_level="READ COMMITTED",
        # Renewed before the server hangs up on a connection that has lain idle.
        pool_recycle=_IDLE_SECONDS - 15,
        connect_args=options if url.get_driver_name() == "pymysql" else {},
    )

    @event.listens_for(engine, "connect")
    def _set_session(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_SESSION)

    return engine


def check_version(dialect: Any) -> None:
    """Raises StorageError for a server without SKIP LOCKED; the dialect has met it before."""
    name, oldest = ("MariaDB", _OLDEST_MARIADB) if dialect.is_mariadb else ("MySQL", _OLDEST_MYSQL)
    version = dialect.server_version_info
    if version < oldest:
        raise StorageError(
            f"the server is {name} {_dotted(version)}; expected {_dotted(oldest)} or newer"
        )


def _dotted(version: tuple[object, ...]) -> str:
    return ".".join(map(str, version))


def adapt_optuna_tables(connection: sa.Connection) -> None:
    """Makes Optuna's tables hold any text, and tell `A` from `a`.

    Optuna leaves the character set to the server, where names mostly ignore case and accents, and
    its texts end at 64 KiB. Tables that are right already are not touched.
    """
    for name in _unfit_tables(connection):
        table = t.optuna_metadata.tables[name]
        changes = ["CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"]
        changes += [
            f"MODIFY {column.name} LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            for column in table.columns
            if isinstance(column.type, sa.Text)
        ]
        connection.exec_driver_sql(f"ALTER TABLE {name} {', '.join(changes)}")


def _unfit_tables(connection: sa.Connection) -> list[str]:
    query = sa.text(
        "SELECT DISTINCT table_name FROM information_schema.columns "
        "WHERE table_schema = database() AND table_name IN :names "
        "AND (collation_name <> 'utf8mb4_bin' OR data_type = 'text')"
    ).bindparams(sa.bindparam("names", list(t.optuna_metadata.tables), expanding=True))
    return sorted(connection.execute(query).scalars())
