"""The real optuna-dashboard on a study's storage, read-only unless asked otherwise.

optuna-dashboard has no authentication: whoever reaches it may delete a study. So it listens on
127.0.0.1 and lets only reading requests through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard
import sqlalchemy as sa

from hpo.artifacts import Place
from hpo.errors import StorageError, StudyNotFoundError, UsageError
from hpo.study.database import Database
from hpo.study.urls import masked
from hpo.watch.storage import WatchedStorage
from hpo.worker.paths import ArtifactStore

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_READING = ("GET", "HEAD")
# Somebody looks at the page; and it asks again.
_LOOK_PATIENCE = 1.0


def dashboard_app(
    database: Database, artifacts: Place, *, allow_write: bool, most: int | None
) -> WsgiApplication:
    """The WSGI application: optuna-dashboard on a cached storage, with the artifacts.

    Args:
        most: Finished trials of a study that are shown at first; None shows all. What is
            downloaded as CSV has all.

    Raises:
        StorageError: The database is out of reach.
        StudyNotFoundError: It holds no study, not even one of plain Optuna's.
    """
    # Also what starts an embedded database before Optuna looks at it.
    if not database.read(lambda connection: sa.inspect(connection).has_table("studies")):
        raise StudyNotFoundError(
            f"the database {masked(database.url)} holds no studies; "
            "check --storage (or HPO_STORAGE), or create one with: hpo submit STUDY_FILE"
        )
    app = _app(database, artifacts, most)
    if most is not None:
        app = _with_downloads(app, _app(database, artifacts, None))
    return _looking_first(app if allow_write else _read_only(app), database)


def _app(database: Database, artifacts: Place, most: int | None) -> WsgiApplication:
    storage = optuna.storages.get_storage(WatchedStorage(database, most))
    app: WsgiApplication = optuna_dashboard.wsgi(storage, ArtifactStore(artifacts))
    return app


def _with_downloads(app: WsgiApplication, whole: WsgiApplication) -> WsgiApplication:
    def either(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        downloads = environ["PATH_INFO"].startswith("/csv/")
        return (whole if downloads else app)(environ, start_response)

    return either


def _read_only(app: WsgiApplication) -> WsgiApplication:
    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in _READING:
            return app(environ, start_response)
        words = "this dashboard is read-only; start it with --allow-write to change the study"
        return _refused(start_response, "403 Forbidden", words)

    return guarded


def _looking_first(app: WsgiApplication, database: Database) -> WsgiApplication:
    """With one answer while the database is away, for which the application has a traceback."""

    def looked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            database.read(lambda connection: connection.execute(sa.select(1)), _LOOK_PATIENCE)
        except StorageError as error:
            return _refused(start_response, "503 Service Unavailable", str(error))
        return app(environ, start_response)

    return looked


def _refused(start_response: Callable[..., Any], status: str, words: str) -> Iterable[bytes]:
    body = json.dumps({"reason": words}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """A line a poll tells nobody anything."""


def make_dashboard_server(app: WsgiApplication, host: str, port: int) -> WSGIServer:
    """A server bound to host and port; port 0 takes a free one.

    Raises:
        UsageError: The port is taken or the host is not this machine's.
    """
    try:
        return make_server(host, port, app, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        raise UsageError(
            f"can't listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from None
