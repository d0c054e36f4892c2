"""Where checkpoints and pictures lie: a local folder, or a place that fsspec reaches by its URL.

A folder is a `pathlib.Path`, any other place a `upath.UPath`, which has the same words for names.
What the two do differently is here: writing a file whole, reading, listing and removing. Trouble
with either is an ArtifactsError that says where, what and what to do. fsspec is imported when a
URL is opened and not before, so a command on folders stays quick.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from hpo.errors import ArtifactsError, UsageError

if TYPE_CHECKING:
    from upath import UPath

T = TypeVar("T")
Place: TypeAlias = "Path | UPath"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):/")
_EXPECTED = "a folder, or a URL such as s3://bucket/prefix, gs://bucket/prefix or file:///folder"
_EXTRAS = {"s3": "'keras-hpo[s3]'", "gs": "'keras-hpo[gs]'", "gcs": "'keras-hpo[gs]'"}
# Folders exist in their names only, and "making" one could create a bucket of a mistyped name.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"}
# In the memory of one process, or in a file that only grows: no place that workers share.
_NOT_SHARED = {"memory", "data", "local"}
# So long a place that does not answer is asked again; a driver has its own, shorter patience.
_PATIENCE_SECONDS = 30.0
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PERMANENT = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)


def open_artifacts(text: str) -> Place:
    """The place that a text names; nothing is read or created there.

    Raises:
        UsageError: It is a URL that can't be used here; says what was expected.
    """
    match = _URL.match(text)
    if match is None:
        return Path(text)
    scheme, parts = match[1].lower(), urlsplit(text)
    if scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Path(unquote(parts.path))
    if scheme == "file" or not parts.netloc or scheme in _NOT_SHARED:
        raise UsageError(f"--artifacts can't be {shown(text)}; expected {_EXPECTED}")
    _find_driver(scheme, text)
    from upath import UPath

    return UPath(text.rstrip("/"))


def _find_driver(scheme: str, text: str) -> None:
    from fsspec.registry import get_filesystem_class  # type: ignore[import-untyped]

    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        package = _EXTRAS.get(scheme)
        advice = f"install it with: pip install {package}" if package else str(error)
        raise UsageError(f"the driver for {scheme}:// is not installed; {advice}") from None
    except ValueError:
        raise UsageError(
            f"--artifacts names an unknown kind of place: {shown(text)}; expected {_EXPECTED}"
        ) from None


def shown(place: Place | str) -> str:
    """Fit for a message: a password in a URL is hidden."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", str(place))


def check_writable(place: Place) -> None:
    """Writes a small file and removes it again; a folder that is missing is made.

    Raises:
        ArtifactsError: Checkpoints can't be written here.
    """
    probe = place / f".hpo-{uuid.uuid4().hex}.probe"
    with _told(place, "written"):
        _write(probe, lambda file: file.write(b"hpo"), patience=0.0)
        _unlink(probe)


def write_whole(path: Place, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file that others see whole or not at all; folders above it are made.

    Raises:
        ArtifactsError: Nothing was written, and an older file of the name is as it was.
    """
    with _told(path, "written"):
        _write(path, write, _PATIENCE_SECONDS)


def _write(path: Place, write: Callable[[BinaryIO], object], patience: float) -> None:
    if isinstance(path, Path):
        _write_beside(path, write)
        return
    content = io.BytesIO()
    write(content)
    if path.protocol not in _OBJECT_STORES:
        path.parent.mkdir(parents=True, exist_ok=True)
    # One call of an object store, which shows an object when all of it has arrived.
    _patiently(lambda: path.fs.pipe_file(path.path, content.getvalue()), patience)


def _write_beside(path: Path, write: Callable[[BinaryIO], object]) -> None:
    # A second time when somebody has deleted the folder between two steps.
    with contextlib.suppress(FileNotFoundError):
        return _write_and_rename(path, write)
    return _write_and_rename(path, write)


def _write_and_rename(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_file(path: Place) -> BinaryIO:
    """The file, to be closed by the caller.

    Raises:
        FileNotFoundError: There is none.
        OSError: A local one can't be read.
        ArtifactsError: The place of another one can't be reached.
    """
    if isinstance(path, Path):
        return path.open("rb")
    try:
        return io.BytesIO(_patiently(lambda: path.fs.cat_file(path.path)))
    except FileNotFoundError:
        raise
    except Exception as error:  # a driver may raise anything
        raise _trouble(path, "read", error) from error


def list_folder(folder: Place) -> list[Place]:
    """What a folder holds now, in no order; nothing when there is no such folder."""
    with _told(folder, "read"):
        if isinstance(folder, Path):
            return list(folder.iterdir()) if folder.is_dir() else []
        # Another worker may have written since a driver looked for the last time.
        folder.fs.invalidate_cache()
        try:
            found = _patiently(lambda: folder.fs.ls(folder.path, detail=False))
        except FileNotFoundError:
            return []
        return [folder / name.rstrip("/").rpartition("/")[2] for name in found]


def remove_file(path: Place) -> None:
    """Removes a file; one that is not there is fine."""
    with _told(path, "removed"):
        _unlink(path)


def _unlink(path: Place) -> None:
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        _patiently(lambda: path.fs.rm_file(path.path))


def remove_folder(folder: Place) -> None:
    """Removes a folder with all that it holds; one that is not there is fine."""
    with _told(folder, "removed"), contextlib.suppress(FileNotFoundError):
        if isinstance(folder, Path):
            shutil.rmtree(folder)
            return
        folder.fs.invalidate_cache()
        _patiently(lambda: folder.fs.rm(folder.path, recursive=True))


@contextlib.contextmanager
def _told(place: Place, what: str) -> Iterator[None]:
    # A driver may raise anything: of botocore's errors few are an OSError.
    expected = OSError if isinstance(place, Path) else Exception
    try:
        yield
    except expected as error:
        raise _trouble(place, what, error) from error


def _trouble(place: Place, what: str, error: Exception) -> ArtifactsError:
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    full = getattr(error, "errno", None) in _FULL
    advice = (
        "make room there"
        if full
        else "check --artifacts (HPO_ARTIFACTS, artifacts= in Python) and the rights on it"
    )
    return ArtifactsError(
        f"{shown(place)} can't be {what}: {next(iter(lines), type(error).__name__)}; "
        f"{advice}, then start again: nothing is lost"
    )


def _patiently(work: Callable[[], T], patience: float = _PATIENCE_SECONDS) -> T:
    from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait_random_exponential(multiplier=0.2, max=5.0),
        stop=stop_before_delay(patience),
        reraise=True,
    )
    return retrying(work)


def _may_pass(error: BaseException) -> bool:
    # Named by its class: botocore may not be installed.
    lacking = "Credentials" in type(error).__name__
    return isinstance(error, Exception) and not isinstance(error, _PERMANENT) and not lacking
