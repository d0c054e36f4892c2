"""Every error that this package raises on purpose.

::

    HpoError                         exit 1
    ├── UsageError                   exit 2   an option or argument is wrong
    │   ├── StudyFileError           exit 2   the study file is wrong; lists every problem
    │   ├── DataError                exit 2   the data can't be used as it is
    │   ├── BuilderError             exit 2   the model builder can't be used as it is
    │   └── StudyMismatchError       exit 2   the study exists and is another one
    ├── StudyNotFoundError           exit 3   no such study, or no such database
    ├── NoUsableTrialError           exit 4   no finished trial with a value
    ├── StorageError                 exit 5   the database is out of reach
    ├── ArtifactsError               exit 1   checkpoints or pictures can't be written or read
    ├── StudyStoppedError            exit 1   the study stopped itself; the message says why
    ├── LeaseLostError               exit 1   another worker owns the slot now
    └── TrialError                   exit 1   one trial went wrong, the study goes on
        └── DivergedError            exit 1   a loss or metric became NaN or infinite

A message says what was wrong, what was expected, what was received and what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass


class HpoError(Exception):
    """The operation failed."""

    exit_code = 1


class UsageError(HpoError):
    """An option or an argument is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a study file.

    `line` and `column` count from 1; both are 0 when the place is not known.
    """

    message: str
    path: str = ""
    line: int = 0
    column: int = 0


class StudyFileError(UsageError):
    """The study file is wrong: carries every problem found, in the order of the file."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.column)))
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        lines = [f"{file}: {count} {noun} found; nothing was created"]
        lines += [_describe(file, problem) for problem in self.problems]
        super().__init__("\n".join(lines))


def _describe(file: str, problem: Problem) -> str:
    place = f"{file}:{problem.line}:{problem.column}" if problem.line else file
    path = f"{problem.path}: " if problem.path else ""
    return f"  {place}: {path}{problem.message}"


class DataError(UsageError):
    """The data can't be used as it is."""


class BuilderError(UsageError):
    """The model builder can't be used as it is."""


class StudyMismatchError(UsageError):
    """The study in the database differs from what was handed in."""


class StudyNotFoundError(HpoError):
    """There is no such study."""

    exit_code = 3


class NoUsableTrialError(HpoError):
    """No trial of the study has a value yet."""

    exit_code = 4


class StorageError(HpoError):
    """The database is out of reach."""

    exit_code = 5


class ArtifactsError(HpoError):
    """Checkpoints or pictures can't be written or read: no trial is to blame."""


class StudyStoppedError(HpoError):
    """The study was stopped before all of its trials were run."""


class LeaseLostError(HpoError):
    """The lease ran out and another worker owns the slot: nothing may be written any more."""


class TrialError(HpoError):
    """One trial went wrong; the study goes on."""


class DivergedError(TrialError):
    """A loss or a metric became NaN or infinite."""
