"""From the path of a study file to a `StudyFile`, or to every problem that it has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from hpo.errors import Problem, StudyFileError
from hpo.spec.checks import study_findings
from hpo.spec.messages import Finding, dotted, explain, received
from hpo.spec.models import StudySpec
from hpo.spec.parameters import Parameter, Scalar, SpaceEntry
from hpo.spec.training import Training

if TYPE_CHECKING:
    from hpo.spec.yaml12 import Document


@dataclass(frozen=True)
class StudyFile:
    """A study file that was read: its spec, and where everything stands in it."""

    path: Path
    spec: StudySpec
    _document: Document = field(repr=False, compare=False)

    def problem(
        self, path: tuple[str | int, ...], message: str, *, at_key: bool = False
    ) -> Problem:
        """Describes a problem with the value (or, `at_key`, with the key) at `path`.

        `path` holds the keys and indexes from the top of the file, such as
        `("space", "dropout", "low")`. What does not stand in the file is placed at the nearest
        parent that does.
        """
        line, column = self._document.place(path, at_key=at_key)
        return Problem(message, dotted(path), line, column)

    def error(self, *problems: Problem) -> StudyFileError:
        """Makes the error that tells these problems of this file."""
        return StudyFileError(str(self.path), list(problems))


def load_study_file(path: Path) -> StudyFile:
    """Reads and checks a study file.

    Raises StudyFileError, with every problem that could be found at once.
    """
    # ruamel.yaml is slow to import, and most commands read no study file.
    from hpo.spec.yaml12 import read

    document = read(_text(path))
    if not isinstance(document.values, dict):
        message = f"expected keys and values, received {received(document.values)}"
        top = Problem(message, "", *document.place(()))
        raise StudyFileError(str(path), document.problems or [top])
    spec, findings = _parse(document.values)
    problems = document.problems + [
        Problem(f.message, dotted(f.path), *document.place(f.path, at_key=f.at_key))
        for f in findings
        if not any(f.path[: len(unread)] == unread for unread in document.unread)
    ]
    if spec is None or problems:
        raise StudyFileError(str(path), problems)
    return StudyFile(path, spec, document)


def read_study_values(values: dict[str, Any], origin: str) -> StudyFile:
    """Checks what would stand in a study file; `origin` stands for the file in messages.

    Raises StudyFileError, whose problems have a path and no line.
    """
    from hpo.spec.yaml12 import Document

    spec, findings = _parse(values)
    if spec is None:
        raise StudyFileError(origin, [Problem(f.message, dotted(f.path)) for f in findings])
    return StudyFile(Path(origin), spec, Document(values))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file") from None
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else error.strerror or str(error)
        raise _unreadable(path, f"can't be read: {reason}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].split(b"\n")
        byte = f"0x{content[error.start]:02x}"
        message = f"expected UTF-8 text, received the byte {byte}: save the file as UTF-8"
        place = len(before), len(before[-1].decode("utf-8-sig", "replace")) + 1
        raise StudyFileError(str(path), [Problem(message, "", *place)]) from None


def _unreadable(path: Path, message: str) -> StudyFileError:
    return StudyFileError(str(path), [Problem(message)])


def _parse(values: dict[str, Any]) -> tuple[StudySpec | None, list[Finding]]:
    try:
        return StudySpec.model_validate(values), []
    except ValidationError as error:
        findings = explain(error, values, StudySpec)
    # The checks across entries run only on a whole spec. Where there is none they run on what could
    # be read, so that nobody has to mend a file in two rounds.
    findings += [finding for finding in _partial_findings(values) if finding not in findings]
    return None, findings


def _partial_findings(values: dict[str, Any]) -> list[Finding]:
    entry: TypeAdapter[Parameter | Scalar] = TypeAdapter(SpaceEntry)
    raw = values.get("space")
    raw = raw if isinstance(raw, dict) else {}
    # Other keys than text are findings of their own.
    raw = {name: entry for name, entry in raw.items() if isinstance(name, str)}
    space: dict[str, Parameter | Scalar] = {}
    for name, value in raw.items():
        with suppress(ValidationError):
            space[name] = entry.validate_python(value)
    unread = [name for name in raw if name not in space]
    training = None
    with suppress(ValidationError):
        training = Training.model_validate(values.get("training", {}))
    return study_findings(training, space, unread)
