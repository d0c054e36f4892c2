"""The best model: export it, predict with it."""

from __future__ import annotations

from pathlib import Path

import click

from hpo.cli.options import (
    FILE,
    FOLDER,
    artifacts_option,
    export_and_print,
    find_study,
    json_option,
    opened,
    project_option,
    storage_option,
    trainers_of_command,
)
from hpo.console import print_prediction
from hpo.launch.places import artifacts_place, storage_url


@click.command()
@click.argument("study", required=False)
@click.option("--out", type=FOLDER, help="Bundle folder.  [default: PROJECT/bundles/STUDY]")
@artifacts_option
@project_option
@storage_option
def export(
    study: str | None,
    out: Path | None,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> None:
    """Write the best model of STUDY with its config and metrics to a folder."""
    with opened(storage_url(storage, project)) as database, trainers_of_command() as trainers:
        record = find_study(database, study)
        export_and_print(
            database, record, project, artifacts_place(artifacts, project), out, trainers
        )


@click.command()
@click.argument("bundle", type=FOLDER)
@click.argument("file", type=FILE)
@click.option("--array", default="x", show_default=True, help="Array in a .npz file.")
@json_option
def predict(bundle: Path, file: Path, array: str, as_json: bool) -> None:
    """Predict rows, pictures or series of FILE (features, a table) with the BUNDLE's model."""
    with trainers_of_command() as trainers:
        trainer = trainers.start()
        rows = trainer.call(
            "hpo.export.predict:predict_file", bundle=bundle, file=file, array=array
        )
        trainer.kill()
    for row in rows:
        print_prediction(row, as_json)
