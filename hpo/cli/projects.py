"""Before a study: a project, its data, its study file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from hpo.cli.options import (
    FOLDER,
    artifacts_option,
    json_option,
    project_option,
    storage_option,
    trainers_of_command,
)
from hpo.console import print_checks, print_data, print_json, say, warn
from hpo.launch.places import artifacts_place, storage_url


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--template",
    type=click.Choice(["table", "image", "sequence", "kerastuner"]),
    default="table",
    show_default=True,
    help="What the project trains on.",
)
def init(folder: Path, template: str) -> None:
    """Write a small project that runs as it is to FOLDER: builder, study file, data."""
    from hpo.launch.scaffolding import create_project

    for path in create_project(folder, template):
        click.echo(os.path.relpath(path))
    say(f"run it with: cd {os.path.relpath(folder)} && hpo run study.yaml")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@project_option
@json_option
def validate(file: Path, project: Path, as_json: bool) -> None:
    """Check the study FILE with its data and builder; nothing is created."""
    with trainers_of_command() as trainers:
        from hpo.launch.submit import validate as validate_file

        found = validate_file(file, project, trainers).preflight
    if as_json:
        parameters = {name: each.model_dump() for name, each in found.parameters.items()}
        data = json.loads(found.signature.to_json())
        content = {"data": data, "parameters": parameters, "metrics": found.metrics}
        print_json(content | {"warnings": found.warnings})
        return
    for words in found.warnings:
        warn(words)
    train, validation, test = found.signature.rows
    click.echo(
        f"{file} is valid: {found.signature.task} on {train} rows "
        f"({validation} for validation, {test} for test)"
    )
    click.echo(f"the builder asks for: {', '.join(found.parameters)}")
    click.echo(f"each epoch reports: {', '.join(found.metrics)}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--plots", type=FOLDER, help="Draw targets, columns and samples into this folder.")
@project_option
@json_option
def data(file: Path, plots: Path | None, project: Path, as_json: bool) -> None:
    """Show what is read as the data of the study FILE; no builder is needed."""
    with trainers_of_command() as trainers:
        from hpo.launch.submit import read_data

        report = read_data(file, project, plots, trainers)
    for words in report.signature.warnings:
        warn(words)
    print_data(report, as_json)
    for path in report.files:
        say(f"drawn: {path}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from hpo.spec import study_schema_text

    click.echo(study_schema_text(), nl=False)


@click.command()
@json_option
@artifacts_option
@project_option
@storage_option
def doctor(as_json: bool, artifacts: str | None, project: Path, storage: str | None) -> int:
    """Check database, artifacts, packages and machine; nothing is created."""
    from hpo.launch.doctor import examine

    checks = list(examine(storage_url(storage, project), artifacts_place(artifacts, project)))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_checks(checks)
    return 1 if any(check.state == "problem" for check in checks) else 0
