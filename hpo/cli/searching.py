"""A search: submit it, work on it, stop it, go on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpo.cli.options import (
    FOLDER,
    artifacts_option,
    db_timeout_option,
    export_and_print,
    find_study,
    lease_option,
    opened,
    project_option,
    storage_option,
    trainers_of_command,
)
from hpo.console import error_console, log_to_stderr, print_best, say, warn
from hpo.launch.places import artifacts_place, bundle_folder, storage_url

if TYPE_CHECKING:
    from hpo.study.snapshot import Snapshot
    from hpo.study.studies import StudyRecord


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--no-export", is_flag=True, help="Leave out the export at the end.")
@click.option("--out", type=FOLDER, help="Bundle folder.  [default: PROJECT/bundles/STUDY]")
@db_timeout_option
@lease_option
@artifacts_option
@project_option
@storage_option
def run(
    file: Path,
    workers: int,
    no_export: bool,
    out: Path | None,
    db_timeout: float,
    lease: float,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> int:
    """Submit the study FILE, work on it with local workers, export the best model.

    Run again, it goes on where it stopped. A time limit that passes is an end like any other.
    """
    with trainers_of_command() as trainers:
        from hpo.export.exporting import check_bundle_folder
        from hpo.launch.local import LaunchOptions, LocalWorkers
        from hpo.launch.running import time_limit_words, work_through
        from hpo.launch.submit import submit_file
        from hpo.spec import load_study_file
        from hpo.study.schema import rehearse_schema
        from hpo.watch.progress import progress_display
        from hpo.worker.signals import INTERRUPTED, interruptible

        say(f"checking {file} ...")
        study, url = load_study_file(file), storage_url(storage, project)
        if not no_export:
            # Now, and not when the search is over.
            check_bundle_folder(bundle_folder(out, project, study.spec.name))
        artifacts = artifacts or str(project / "artifacts")
        options = LaunchOptions(
            study.spec.name,
            url,
            project,
            artifacts,
            workers,
            lease,
            trainers.address,
            db_timeout=db_timeout,
        )
        # Before the workers' server is there: three importing processes would share two cores, and
        # the first trial waits for the one that imports Keras.
        rehearse_schema()
        with LocalWorkers(options) as local:
            record = submit_file(study, url, project, trainers, warn, db_timeout)
            with (
                interruptible() as interruption,
                opened(url, db_timeout, interruption.stop) as database,
                progress_display(error_console()) as display,
            ):
                end = work_through(database, record, local, interruption, display.show)
        if end.interrupted:
            say(
                f"interrupted; {end.snapshot.finished} of {end.snapshot.trials} trials are "
                "finished. The same command goes on from here."
            )
            return INTERRUPTED
        if end.snapshot.timed_out:
            say(time_limit_words(end.snapshot))
        else:
            say(f"the study {record.name!r} is finished: {end.snapshot.trials} trials")
        with opened(url, db_timeout) as database:
            if no_export:
                print_best(database, record)
            else:
                export_and_print(
                    database, record, project, artifacts_place(artifacts, project), out, trainers
                )
    return 0


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@project_option
@storage_option
def submit(file: Path, project: Path, storage: str | None) -> None:
    """Check the study FILE and create the study, without working on it."""
    with trainers_of_command() as trainers:
        from hpo.launch.submit import submit as submit_study
        from hpo.study.snapshot import take_snapshot

        url = storage_url(storage, project)
        record = submit_study(file, url, project, trainers, warn)
        with opened(url) as database:
            snapshot = take_snapshot(database, record)
    click.echo(record.name)
    _say_what_is_left(record, snapshot)


def _say_what_is_left(record: StudyRecord, snapshot: Snapshot) -> None:
    if snapshot.state == "finished":
        say(f"all of {record.trials} trials are finished; see: hpo best {record.name}")
    elif snapshot.state == "stopped":
        say(f"the study is stopped: {snapshot.reason}; go on with: hpo resume {record.name}")
    else:
        left = record.trials - snapshot.finished
        say(f"{left} trials to run; start workers with: hpo worker {record.name}")


@click.command("import-kerastuner")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, resolve_path=True))
@click.argument("file", type=click.Path(path_type=Path))
@project_option
@storage_option
def import_kerastuner(folder: Path, file: Path, project: Path, storage: str | None) -> None:
    """Submit the study FILE with what the KerasTuner project in DIR has found out."""
    with trainers_of_command() as trainers:
        from hpo.launch.importing import import_project, in_words
        from hpo.study.snapshot import take_snapshot

        url = storage_url(storage, project)
        done = import_project(folder, file, url, project, trainers, warn)
        with opened(url) as database:
            snapshot = take_snapshot(database, done.record)
    click.echo(done.record.name)
    before = done.fitting - done.added
    say(f"{done.added} of {done.found} trials imported" + (f", {before} before" if before else ""))
    for line in in_words(done.left_out):
        say(f"left out {line}")
    _say_what_is_left(done.record, snapshot)


@click.command()
@click.argument("study")
@click.option("--threads", type=click.IntRange(min=1), help="Cores for its trainer.  [all]")
@click.option("--with-parent", is_flag=True, hidden=True, help="Leave when stdin closes.")
@click.option("--name", hidden=True, help="Unlike any other worker's.")
@db_timeout_option
@lease_option
@artifacts_option
@project_option
@storage_option
def worker(
    study: str,
    threads: int | None,
    with_parent: bool,
    name: str | None,
    db_timeout: float,
    lease: float,
    artifacts: str | None,
    project: Path,
    storage: str | None,
) -> int:
    """Work on STUDY until no trial is left; Ctrl-C gives the trial in flight back."""
    with trainers_of_command() as trainers:
        from hpo.launch.local import available_cores
        from hpo.launch.running import check_not_stopped, time_limit_words
        from hpo.study.snapshot import take_snapshot
        from hpo.worker.loop import Worker, WorkerOptions
        from hpo.worker.parent import stop_with_parent
        from hpo.worker.signals import INTERRUPTED, interruptible

        log_to_stderr(logging.WARNING if with_parent else logging.INFO)
        options = WorkerOptions(
            project, artifacts_place(artifacts, project), lease, threads or available_cores()
        )
        with interruptible() as interruption:
            if with_parent:
                stop_with_parent(interruption.stop)
            with opened(storage_url(storage, project), db_timeout, interruption.stop) as database:
                record = find_study(database, study)
                Worker(database, record, options, trainers, interruption.stop, name).run()
                # Whoever was told to leave did not ask; a launcher looks itself.
                if not interruption.stop.is_set() and not with_parent:
                    snapshot = take_snapshot(database, record)
                    check_not_stopped(snapshot)
                    if snapshot.timed_out:
                        say(time_limit_words(snapshot))
    return INTERRUPTED if interruption.by_user else 0


@click.command()
@click.argument("study", required=False)
@project_option
@storage_option
def stop(study: str | None, project: Path, storage: str | None) -> None:
    """Stop STUDY: its workers give their trials back and leave."""
    from hpo.study.snapshot import take_snapshot
    from hpo.study.studies import stop_study

    with opened(storage_url(storage, project)) as database:
        record = find_study(database, study)
        if take_snapshot(database, record).state == "finished":
            say(f"{record.name!r} is finished: there is nothing to stop")
            return
        stop_study(database, record, "stopped with hpo stop")
    say(f"stopped {record.name!r}; go on with: hpo resume {record.name}")


@click.command()
@click.argument("study", required=False)
@project_option
@storage_option
def resume(study: str | None, project: Path, storage: str | None) -> None:
    """Let workers go on with a stopped STUDY."""
    from hpo.study.studies import resume_study

    with opened(storage_url(storage, project)) as database:
        record = find_study(database, study)
        resume_study(database, record)
    say(f"{record.name!r} goes on; start workers with: hpo worker {record.name}")
