"""Database URLs: what is accepted, which driver it means, and how it is shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from hpo.errors import UsageError

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    # Optuna knows the dialect "mysql" only, and SQLAlchemy sees by itself which server it is.
    "mariadb": "mysql+pymysql",
}
# The scheme of a PostgreSQL that is started when it is needed, and its folder.
EMBEDDED = "embedded"
EMBEDDED_FOLDER = "hpo-postgresql"
_LAST_PORT = 65_535


def parse_url(text: str) -> sa.URL:
    """The URL with the driver that this project ships with.

    Raises UsageError for a text that is no URL or names a database that is not supported. The
    message never repeats the text, which may hold a password.
    """
    if text == EMBEDDED or text.startswith(f"{EMBEDDED}:"):
        return _embedded_url(text.removeprefix(EMBEDDED).removeprefix(":"))
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        # ValueError: what stands where the port should be is no number.
        raise UsageError(_NO_URL) from None
    # Neither would be hidden where the URL is shown.
    if "@" in (url.host or ""):
        raise UsageError(_NO_URL)
    if any("passw" in key for key in url.query):
        raise UsageError(
            "the storage has a password behind its ?, where it would be seen; expected it before "
            "the @: postgresql://user:password@host/database"
        )
    name = url.drivername.partition("+")[0]
    if name not in _DRIVERS:
        raise UsageError(
            f"the storage names the database {name!r}; expected one of sqlite, postgresql, mysql, "
            "or embedded"
        )
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(
            "a SQLite storage needs a file, because every process opens it again; "
            "expected something like sqlite:///hpo.db"
        )
    if name == "sqlite" and url.query:
        raise UsageError(
            "a SQLite storage takes no options; leave out what stands behind the ? of --storage "
            f"(or HPO_STORAGE): {shown_options(url)}"
        )
    if url.port is not None and not 0 < url.port <= _LAST_PORT:
        raise UsageError(
            f"the storage names the port {url.port}; expected one of 1 to {_LAST_PORT}"
        )
    dialect, _, driver = _DRIVERS[name].partition("+")
    driver = url.drivername.partition("+")[2] or driver
    return url.set(drivername=f"{dialect}+{driver}" if driver else dialect)


def _embedded_url(folder: str) -> sa.URL:
    if folder.startswith("//"):
        raise UsageError(
            "an embedded storage is followed by a folder and not by slashes; "
            "expected embedded or embedded:/some/folder"
        )
    path = Path(folder or EMBEDDED_FOLDER)
    # The shell expands it only where a word begins.
    path = path.expanduser() if folder.startswith("~/") else path
    return sa.URL.create(EMBEDDED, database=str(path.resolve()))


_NO_URL = (
    "the storage is not a database URL; expected embedded, or something like sqlite:///hpo.db or "
    "postgresql://user:password@host/database, with special characters of the password "
    "percent-encoded (@ is %40, / is %2F, : is %3A)"
)


def masked(text: str) -> str:
    """The URL without its password, fit for a message."""
    try:
        url = parse_url(text)
    except UsageError:
        return "(not a database URL)"
    if url.drivername == EMBEDDED:
        return f"{EMBEDDED}:{url.database}"
    return url.render_as_string(hide_password=True)


def shown_options(url: sa.URL) -> str:
    """What stands behind the `?`, as it was meant."""
    return ", ".join(f"{name}={value}" for name, value in url.query.items())


def without_password(text: str, url: sa.URL) -> str:
    """Words of a driver's, which may repeat the URL."""
    password = url.password or ""
    for secret in filter(None, (password, quote(password, safe=""))):
        text = text.replace(secret, "***")
    return text


def import_driver(text: str) -> None:
    """Imports what a `Database` of this URL imports when it is made, and connects to nothing."""
    url = parse_url(text)
    if url.drivername == EMBEDDED:
        import hpo.study.embedded  # noqa: F401

        url = sa.make_url(f"{_DRIVERS['postgresql']}://")
    url.get_dialect().import_dbapi()
