"""Trouble with the database: whether it passes, and what a person is told of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
)

from hpo.errors import HpoError, StorageError, UsageError
from hpo.study.mysql import TRANSIENT
from hpo.study.urls import masked, parse_url, shown_options, without_password

# PostgreSQL's states of a server that takes no writes for a while, as a standby that is about to
# lead, and of a transaction that it ended because nothing came.
PASSING = ("25006", "25P03")
# Words of drivers for rights that the user lacks.
_RIGHTS = ("permission denied for", "must be owner of", "command denied to", "to database '")
# Words of drivers for what waiting does not mend.
_PERMANENT = (
    *_RIGHTS,
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
    "access denied",
    "does not exist",
    "does not support ssl",
    "certificate verify failed",
    "unrecognized configuration parameter",
    "invalid value for parameter",
    "unknown database",
    "no such table",
    "unable to open database file",
    "readonly database",
    "not a database",
    "malformed",
)
# PostgreSQL's words for options that it does not know, or whose values it does not.
_MISWRITTEN = re.compile(
    r"invalid connection option|invalid port number|invalid \w+ value: |bad value for \w+: "
    r"|invalid integer value .* for connection option"
)


def explained(error: DBAPIError, url: str) -> HpoError | None:
    """What a person is told; None when the database is not to blame, but what it was asked."""
    reason = reason_of(error, url)
    if _is_miswritten(error):
        return wrong_options(reason, url)
    if not _is_trouble(error):
        return None
    state = "is out of reach" if is_transient(error) else "can't be used"
    return StorageError(f"the database {masked(url)} {state}: {reason}; {_advice(error, url)}")


def lacks_rights(error: DBAPIError) -> bool:
    """Whether the database's user may not do what was asked."""
    return _says(error, _RIGHTS)


def reason_of(error: DBAPIError, url: str) -> str:
    """The first line of the driver's own words."""
    reason = next(iter(_words(error).strip().splitlines()), type(error.orig).__name__)
    return without_password(reason, parse_url(url))


def wrong_options(reason: str, url: str) -> UsageError:
    """The driver does not take what stands in the URL."""
    parsed = parse_url(url)
    return UsageError(
        f"the driver of {parsed.set(query={}).render_as_string()} does not take the options "
        f"({shown_options(parsed)}): {without_password(reason, parsed)}; mend what stands behind "
        "the ? of --storage (or HPO_STORAGE)"
    )


def _advice(error: DBAPIError, url: str) -> str:
    if lacks_rights(error):
        return (
            "have its owner GRANT this user the right to read and write its tables and, for hpo "
            "submit and hpo run, to create them"
        )
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _file_advice(Path(parsed.database or "").absolute())
    return "check that it runs and that --storage (or HPO_STORAGE) is right"


def _file_advice(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"its folder {folder} does not exist: check --storage (or HPO_STORAGE)"
    if not os.access(folder, os.W_OK | os.X_OK):
        return (
            f"its folder {folder} can't be written, where SQLite keeps its log: choose another "
            "--storage (or HPO_STORAGE)"
        )
    return "check that the file is there and can be written, and --storage (or HPO_STORAGE)"


def is_transient(error: BaseException) -> bool:
    """Whether the same work may succeed a little later."""
    if not isinstance(error, DBAPIError) or _is_miswritten(error) or _says(error, _PERMANENT):
        return False
    code = _mysql_code(error)
    if code is not None:
        return error.connection_invalidated or code in TRANSIENT
    if getattr(error.orig, "sqlstate", None) in PASSING:
        return True
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def _is_trouble(error: DBAPIError) -> bool:
    """Whether the database is to blame, and not what it was asked."""
    if isinstance(error, OperationalError | InterfaceError) or is_transient(error):
        return True
    # No subclass: "file is not a database".
    return lacks_rights(error) or type(error) is DatabaseError


def _is_miswritten(error: DBAPIError) -> bool:
    # Of a connection alone: a statement may hold any words.
    return error.statement is None and _MISWRITTEN.search(_words(error)) is not None


def _says(error: DBAPIError, phrases: tuple[str, ...]) -> bool:
    text = str(error.orig).lower()
    return any(phrase in text for phrase in phrases)


def _mysql_code(error: DBAPIError) -> int | None:
    """The number that MySQL's drivers put before the words; other drivers have words alone."""
    first = next(iter(error.orig.args), None) if error.orig is not None else None
    return first if isinstance(first, int) else None


def _words(error: DBAPIError) -> str:
    if error.orig is None:
        return str(error)
    return str(error.orig if _mysql_code(error) is None else error.orig.args[-1])
