"""What a person looks at first when something does not work: one check for each thing needed.

A check only looks. It creates no database, table, study or folder, and imports no Keras: packages
are known from their metadata and files. A folder that exists is tried with a file that is removed
again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Literal

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo import __version__
from hpo.artifacts import Place, check_writable, shown
from hpo.errors import ArtifactsError, HpoError
from hpo.launch.local import available_cores
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.studies import study_names
from hpo.study.urls import EMBEDDED, masked, parse_url
from hpo.worker.forking import FORKING

State = Literal["ok", "warning", "problem"]

# A person waits for the answer, so a database that is away is not waited for as a worker would.
_PATIENCE = 2.0
_CLOCK_SECONDS = 5.0
# Resident after a small fit; data and large networks come on top.
_TRAINER_BYTES = 500_000_000
# As many as `hpo run` starts.
_TRAINERS = 2
_DISK_BYTES = 1_000_000_000
_CHOOSE_STORAGE = "choose another --storage (HPO_STORAGE)"
_CHOOSE_ARTIFACTS = "choose another --artifacts (HPO_ARTIFACTS)"
_INSTALL = "install it with: make install"
# The module, and the distributions that may have brought it.
_PACKAGES = {
    "optuna": ("optuna",),
    "keras": ("keras",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "keras_tuner": ("keras-tuner",),
}
_SQL_VERSION = {"sqlite": "SELECT sqlite_version()", "postgresql": "SHOW server_version"}
# The longest path that a Unix socket may have.
_SOCKET_PATH = 107


@dataclass(frozen=True)
class Check:
    """What was found about one thing.

    Attributes:
        state: A `warning` costs time or comfort; with a `problem` studies do not work.
        advice: What to do next; may be empty when the state is `ok`.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def examine(url: str, artifacts: Place) -> Iterator[Check]:
    """Checks this machine, the database and the place of artifacts. Never raises an HpoError."""
    yield from check_storage(url)
    yield check_artifacts(artifacts)
    yield from check_versions()
    yield check_cores()
    yield check_memory(psutil.virtual_memory().available)
    yield check_gpu()
    yield check_byte_code()
    yield check_fork_server()


def check_storage(url: str) -> Iterator[Check]:
    """Whether the database can be used, which one it is, its studies and its clock."""
    try:
        parsed = parse_url(url)
        unopened = _UNOPENED.get(parsed.get_backend_name())
        refusal = unopened(Path(parsed.database or "")) if unopened is not None else None
        if refusal is not None:
            yield refusal
            return
        yield from _database(url)
    except HpoError as error:
        # Our messages end with what to do.
        found, _, advice = str(error).rpartition("; ")
        yield Check("storage", "problem", found or advice, advice if found else "")
    except OSError as error:
        yield Check("storage", "problem", f"{masked(url)}: {error.strerror}", _CHOOSE_STORAGE)
    except SQLAlchemyError as error:
        words = f"{masked(url)} can't be read: {type(error).__name__}"
        yield Check("storage", "problem", words, "do its tables belong to another program?")


def _sqlite_file(path: Path) -> Check | None:
    """What can be said without opening the file; None when it can be opened."""
    path = path.absolute()
    if path.is_file():
        if os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK):
            return None
        advice = "give yourself the right to write the file and its folder"
        return Check("storage", "problem", f"{path} can't be written", advice)
    if path.exists():
        return Check("storage", "problem", f"{path} is no file", _CHOOSE_STORAGE)
    if not path.parent.is_dir():
        return Check("storage", "problem", f"there is no folder {path.parent}", "create it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        words = f"{path} can't be created: its folder can't be written"
        return Check("storage", "problem", words, _CHOOSE_STORAGE)
    words = f"SQLite, no file {path} yet"
    return Check("storage", "ok", words, "hpo submit or hpo run creates it")


def _embedded(folder: Path) -> Check | None:
    """As `_sqlite_file`; raises UsageError for what stands in the way."""
    from hpo.study.embedded import cluster_at

    cluster = cluster_at(folder)
    cluster.check(create=True)
    if cluster.is_there():
        return None
    words = f"embedded PostgreSQL, no database in {folder} yet"
    return Check("storage", "ok", words, "hpo submit or hpo run creates it")


_UNOPENED = {"sqlite": _sqlite_file, EMBEDDED: _embedded}


def _database(url: str) -> Iterator[Check]:
    database = Database(url, patience=_PATIENCE)
    try:
        yield _product(database)
        yield _studies(study_names(database))
        yield check_clock(_seconds_apart(database))
    finally:
        database.close()


def _product(database: Database) -> Check:
    def work(connection: sa.Connection) -> tuple[str, str]:
        question = _SQL_VERSION.get(connection.dialect.name, "SELECT version()")
        number = str(connection.execute(sa.text(question)).scalar())
        if connection.dialect.name != "sqlite":
            return number, ""
        return number, str(connection.execute(sa.text("PRAGMA journal_mode")).scalar())

    number, journal = database.read(work)
    words = f"{database.dialect} {number}, {masked(database.url)}"
    if journal in ("", "wal"):
        return Check("storage", "ok", words + (", write-ahead logging" if journal else ""))
    advice = "workers wait for each other; hpo submit turns write-ahead logging on"
    return Check("storage", "warning", f"{words}, journal mode {journal}", advice)


def _studies(names: list[str]) -> Check:
    if not names:
        return Check("studies", "ok", "none yet", "create one with: hpo submit STUDY_FILE")
    return Check("studies", "ok", f"{len(names)}: {', '.join(names)}")


def _seconds_apart(database: Database) -> float:
    def work(connection: sa.Connection) -> float:
        before = time.time()
        there = float(connection.execute(sa.select(t.clock())).scalar_one())
        return there - (before + time.time()) / 2

    return database.read(work)


def check_clock(seconds: float) -> Check:
    """The database's clock against this machine's, both in UTC."""
    if abs(seconds) < 0.05:
        return Check("clock", "ok", "the database's clock agrees with this machine's")
    side = "ahead of" if seconds > 0 else "behind"
    words = f"the database's clock is {abs(seconds):.1f} s {side} this machine's"
    if abs(seconds) <= _CLOCK_SECONDS:
        return Check("clock", "ok", words)
    advice = (
        "it does not matter for leases, which go by the database's clock alone; "
        "times in logs and in the database will differ until the clocks are synchronized"
    )
    return Check("clock", "warning", words, advice)


def check_artifacts(place: Place) -> Check:
    """Whether workers can write checkpoints: a file is written there and removed."""
    try:
        if isinstance(place, Path):
            return _folder(place)
        check_writable(place)
        return Check("artifacts", "ok", f"{shown(place)} can be written")
    except ArtifactsError as error:
        words = str(error).partition("; ")[0]
    except OSError as error:
        words = f"{place} can't be written: {error.strerror}"
    return Check("artifacts", "problem", words, _CHOOSE_ARTIFACTS)


def _folder(folder: Path) -> Check:
    if not folder.exists():
        return _missing_folder(folder)
    check_writable(folder)
    free = shutil.disk_usage(folder).free
    words = f"{folder} can be written, {_gigabytes(free)} free"
    if free < _DISK_BYTES:
        return Check("artifacts", "warning", words, "checkpoints may not fit; make room")
    return Check("artifacts", "ok", words)


def _missing_folder(folder: Path) -> Check:
    parent = next(path for path in folder.absolute().parents if path.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Check("artifacts", "ok", f"no folder {folder} yet", "the first worker creates it")
    words = f"the folder {folder} can't be created in {parent}"
    return Check("artifacts", "problem", words, _CHOOSE_ARTIFACTS)


def check_versions() -> Iterator[Check]:
    """What is installed, from the packages' metadata."""
    yield Check("python", "ok", f"{sys.version.split()[0]}, {sys.executable}")
    yield Check("hpo", "ok", __version__)
    for module, distributions in _PACKAGES.items():
        yield _package(module, distributions)


def _package(module: str, distributions: tuple[str, ...]) -> Check:
    name = module.replace("_", "-")
    if find_spec(module) is None:
        return Check(name, "problem", "is not installed", _INSTALL)
    found = [(each, number) for each in distributions if (number := _version(each))]
    words = ", ".join(number if each == name else f"{number} ({each})" for each, number in found)
    return Check(name, "ok", words or "of unknown version")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_cores() -> Check:
    """Those that this process may use; a container's share of time is not looked at."""
    cores = available_cores()
    return Check("cores", "ok", f"{cores}, shared by the workers of this machine")


def check_memory(available: int) -> Check:
    """Whether trainers fit into so many free bytes, and how many do."""
    room = available // _TRAINER_BYTES
    words = f"{_gigabytes(available)} free: room for {room} trainers of about 0.5 GB"
    if room >= _TRAINERS:
        return Check("memory", "ok", words)
    return Check("memory", "warning", words, "start fewer workers, or free some memory")


def check_gpu() -> Check:
    """NVIDIA's own list of the GPUs, and whether the installed TensorFlow is one for the CPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return Check("gpu", "ok", "none (there is no nvidia-smi); trainers use the CPU")
    gpus = _gpus(command)
    if not gpus:
        words = "nvidia-smi is there and names no GPU; trainers use the CPU"
        return Check("gpu", "warning", words, "is the driver loaded? try: nvidia-smi")
    if _version("tensorflow") is None and _version("tensorflow-cpu") is not None:
        words = f"{', '.join(gpus)}; the installed TensorFlow uses the CPU only"
        return Check("gpu", "warning", words, "use it with: make install TENSORFLOW=gpu")
    return Check("gpu", "ok", ", ".join(gpus))


def _gpus(command: str) -> list[str]:
    try:
        done = subprocess.run(
            [command, "-L"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    # GPU 0: NVIDIA H200 (UUID: GPU-...)
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [line.partition(" (UUID")[0] for line in lines] if done.returncode == 0 else []


def check_byte_code() -> Check:
    """Whether the large packages were compiled when they were installed."""
    folders = [folder for module in ("keras", "tensorflow") for folder in _folders(module)]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    lacking = sum(not Path(cache_from_source(path)).exists() for path in sources)
    # Some files are templates, or for another Python, and never compile.
    if lacking <= len(sources) // 20:
        return Check("byte-code", "ok", f"{len(sources) - lacking} files are compiled")
    return Check(
        "byte-code",
        "warning",
        f"{lacking} of {len(sources)} files of keras and tensorflow are not compiled: "
        "importing them takes about 20 s instead of 7",
        f"compile once: {sys.executable} -m compileall -q {' '.join(map(str, folders))}",
    )


def _folders(module: str) -> list[Path]:
    spec = find_spec(module)
    return [Path(spec.origin).parent] if spec is not None and spec.origin is not None else []


def check_fork_server() -> Check:
    """Whether trainers are forked from a process that has imported Keras once."""
    if not FORKING:
        words = f"not on {sys.platform}: each trainer imports Keras itself"
        return Check("fork server", "warning", words, "trainers start slower; results are the same")
    folder = Path(tempfile.gettempdir())
    if len(str(folder / "hpo-12345678" / "forkserver")) > _SOCKET_PATH:
        words = f"the folder for temporary files has too long a path: {folder}"
        return Check("fork server", "problem", words, "set TMPDIR to a shorter path")
    return Check("fork server", "ok", "available")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
