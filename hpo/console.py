"""What the commands say: data to stdout, words and logs to stderr.

Like `hpo.cli`, this imports what is heavy inside its functions.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hpo.data.report import DataReport
    from hpo.export.exporting import Exported
    from hpo.launch.doctor import Check
    from hpo.study.database import Database
    from hpo.study.snapshot import BestTrial
    from hpo.study.studies import StudyRecord


# What stands between the user's name and the last @ of a URL; one that was not percent-encoded may
# hold more of them.
_PASSWORD = re.compile(r"(:/+[^\s:@/]*:)\S*@")
_PASSWORD_ARGUMENT = re.compile(r"(://[^:@/]*:).*@|(passw\w*=)[^&]*", re.DOTALL | re.IGNORECASE)


def without_passwords(text: str) -> str:
    """The text with `***` for the password of each URL in it."""
    return _PASSWORD.sub(r"\1***@", text)


def hide_passwords_from_ps() -> None:
    """Rewrites this process's command line, which every user of the machine may read."""
    if not any(map(_PASSWORD_ARGUMENT.search, sys.orig_argv)):
        return
    from setproctitle import setproctitle

    setproctitle(" ".join(map(_masked_argument, sys.orig_argv)))


def _masked_argument(text: str) -> str:
    def mask(match: re.Match[str]) -> str:
        return f"{match[1]}***@" if match[1] else f"{match[2]}***"

    return _PASSWORD_ARGUMENT.sub(mask, text)


def print_best(database: Database, record: StudyRecord, as_json: bool = False) -> None:
    """The best configuration so far."""
    from hpo.study.snapshot import best_trial

    found = best_trial(database, record)
    if as_json:
        print_json(asdict(found) | {"metric": record.metric})
    else:
        _show_best(found, record, {})


def print_exported(exported: Exported, record: StudyRecord) -> None:
    """The exported configuration, its metrics and the bundle's folder."""
    bundle = exported.bundle
    figures = {f"validation {name}": f"{value:.5g}" for name, value in bundle.validation.items()}
    figures |= {f"test {name}": f"{value:.5g}" for name, value in bundle.test.items()}
    _show_best(exported.trial, record, figures | {"bundle": os.path.relpath(bundle.folder)})


def _show_best(trial: BestTrial, record: StudyRecord, figures: dict[str, str]) -> None:
    from hpo.watch.tables import best_table

    print_table(best_table(trial, record.metric, figures))


def print_data(report: DataReport, as_json: bool) -> None:
    """What `hpo data` has read."""
    if as_json:
        print_json(asdict(report) | {"files": [str(file) for file in report.files]})
        return
    from hpo.watch.data import classes_table, columns_table

    signature = report.signature
    train, validation, test = signature.rows
    click.echo(f"{signature.task}: {train} rows train, {validation} validate, {test} test")
    click.echo(f"the model sees {_shapes(signature.input_shape)}")
    print_table(columns_table(report))
    if report.classes is not None:
        print_table(classes_table(report.classes))


def _shapes(shape: Any) -> str:
    if isinstance(shape, dict):
        return ", ".join(f"{name} {tuple(each)}" for name, each in shape.items())
    return str(tuple(shape))


def print_checks(checks: list[Check]) -> None:
    """What `hpo doctor` has found."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="hpo doctor", title_justify="left", title_style="bold", show_header=False)
    for style in ("", "bold"):
        table.add_column(no_wrap=True, style=style)
    table.add_column(overflow="fold")
    colours = {"ok": "green", "warning": "yellow", "problem": "red"}
    for check in checks:
        words = f"{check.found}\n-> {check.advice}" if check.advice else check.found
        table.add_row(check.name, Text(check.state, colours[check.state]), words)
    print_table(table)


def print_prediction(row: dict[str, Any], as_json: bool) -> None:
    """One line: the class and its probability, or the value; with `as_json` all of it.

    A picture's file or a series's id stands before them.
    """
    if as_json:
        click.echo(json.dumps(row))
        return
    words = [str(row[key]) for key in ("file", "id") if key in row]
    words.append(str(row["prediction"]))
    if "probability" in row:
        words.append(f"{row['probability']:.4f}")
    click.echo("\t".join(words))


def print_table(table: Any) -> None:
    """A table on stdout."""
    from rich.console import Console

    # Brackets and colons in names and values are what they are.
    Console(markup=False, emoji=False).print(table)


def error_console() -> Any:
    """Where progress goes: stderr."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False)


def print_json(content: Any) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(content, indent=2))


def say(text: str) -> None:
    """A word to the person, on stderr: stdout is for data."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """What a person should look at, on stderr."""
    say(f"warning: {text}")


def log_to_stderr(level: int) -> None:
    """Logs of this package and of libraries; Optuna's own only when they are errors."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("optuna").setLevel(logging.ERROR)
