"""`hpo.tune`: a study of a builder and data that are at hand in a notebook or a script."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from hpo.api.builders import FoundBuilder, find_builder
from hpo.api.inputs import DataInput, read_input
from hpo.api.objectives import read_objective
from hpo.api.study import Site, Study, opened_trainers
from hpo.console import error_console, say
from hpo.errors import NoUsableTrialError, StudyMismatchError, StudyStoppedError, UsageError
from hpo.launch.inprocess import InProcessWorker
from hpo.launch.local import LaunchOptions, LocalWorkers, available_cores
from hpo.launch.places import DB_TIMEOUT
from hpo.launch.running import RunEnd, attend, time_limit_words, work_through
from hpo.launch.submit import submit_file
from hpo.spec import StudyFile, read_study_values
from hpo.spec.models import Direction
from hpo.study.database import Database
from hpo.study.snapshot import Snapshot
from hpo.study.studies import StudyRecord
from hpo.study.urls import parse_url
from hpo.watch.progress import in_words, progress_display
from hpo.worker.loop import WorkerOptions
from hpo.worker.paths import StudyPaths, remove_with_folders
from hpo.worker.signals import Interruption, interruptible
from hpo.worker.trainers import Trainers


def tune(
    build: str | Callable[..., Any] | Any,
    data: Any,
    *,
    target: str | int | list[str | int] | None = None,
    objective: str | Any = "val_accuracy",
    direction: Direction | None = None,
    space: Mapping[str, Any] | None = None,
    trials: int = 20,
    workers: int = 1,
    training: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    task: str | None = None,
    args: Mapping[str, Any] | None = None,
    name: str | None = None,
    storage: str | None = None,
    artifacts: str | Path | None = None,
    project: str | Path | None = None,
    lease: float = 30.0,
    progress: bool = True,
) -> Study:
    """Searches the hyperparameters of a model; the same call goes on where it stopped.

    The study is the one that `hpo run` makes of a study file: `hpo status`, `hpo worker` and
    `hpo dashboard` know it. A builder that can be imported is trained in worker processes. One that
    a notebook, a script or another function defines is trained in this process.

    Args:
        build: Function `build(hp, ...)` or `keras_tuner.HyperModel`, class or instance, or where
            to import it from, such as `"my_model:build"`.
        data: `(x, y)` or a mapping of `x` and `y`: arrays of shape (rows, ...), `x` by name for
            several inputs; a DataFrame with `target`, or with its target column as `y`; a
            `tf.data.Dataset` or `keras.utils.PyDataset` that fits in memory; a mapping with
            `train`, `validation` and `test` of these; a function that returns one of these, or
            where to import it from, such as `"my_data:load"`; or the section `data:` of a study
            file. What is in memory is written to a file in the study's artifacts folder.
        target: The column or columns of a DataFrame to learn, by their names.
        objective: A metric that Keras reports after each epoch, or a `keras_tuner.Objective`.
        direction: `maximize` or `minimize`; read off the metric's name when left out.
        space: As the section `space:` of a study file.
        trials: The study ends with exactly so many; more than before extend it.
        workers: Processes to train in. More than one need a builder that can be imported.
        training: As the section `training:` of a study file: epochs, early stopping, seed, ...
        search: As the section `search:`, without `trials`: sampler, pruner, timeout, ...
        split: As `data.split` of a study file.
        preprocess: As `data.preprocess` of a study file.
        task: `binary`, `multiclass`, `multilabel` or `regression`; read off the targets when left
            out.
        args: For the builder's parameters, by name.
        name: Of the study; made from the builder's name when left out.
        storage: Database URL, or `embedded`; `HPO_STORAGE`, else `hpo.db` in the project folder.
        artifacts: Folder or URL of checkpoints; `HPO_ARTIFACTS`, else `artifacts` in the project
            folder.
        project: Folder that modules and paths are resolved from; the working directory when left
            out.
        lease: Seconds without a sign of life after which a trial is taken over.
        progress: Whether to show progress on stderr.

    Returns:
        The study: finished, or as far as it came in its time limit.

    Raises:
        StudyFileError: Arguments are wrong; every one is told with its path, as in a study file.
        UsageError, DataError, BuilderError: The study can't be trained; nothing was created.
        StudyMismatchError: A study of this name exists, with another builder, data or settings.
        StudyStoppedError: It was stopped, or has stopped itself after equal failures;
            `resume()` of the study takes that back, and the same call goes on.
        StorageError, ArtifactsError: Database or artifacts are out of reach.
        KeyboardInterrupt: The trial in flight was given back; the same call goes on.
    """
    builder = find_builder(build)
    if not isinstance(workers, Integral) or workers < 1:
        raise UsageError(f"workers must be a whole number of 1 or more, received {workers!r}")
    if not isinstance(lease, Real) or not 1 <= lease < math.inf:
        raise UsageError(f"lease must be a number of seconds of 1 or more, received {lease!r}")
    if workers > 1 and builder.handed is not None:
        raise UsageError(
            f"{builder.reference.partition(':')[2]} exists in this process alone, so there can be "
            f"one worker, received workers={workers}: move it into a module, a file my_model.py, "
            "import it from there, and its workers will be processes"
        )
    if not isinstance(progress, bool):
        raise UsageError(f"progress must be True or False, received {progress!r}")
    site = Site.of(project, storage, artifacts)
    parse_url(site.url)
    study_name = builder.study_name if name is None else name
    columns = _split_columns(split)
    given = read_input(data, target, _data_folder(site, study_name), site.project, columns)
    file = _study_file(
        name=study_name,
        data=_with(given.section, split=split, preprocess=preprocess, task=task),
        model={"builder": builder.reference, "args": _section(args)},
        objective=read_objective(objective, direction),
        training=_section(training),
        space=_section(space),
        search=_with(_section(search), trials=trials),
    )
    with opened_trainers(builder.handed) as trainers:
        record = _submit(file, given, site, builder, trainers)
        study = Study(record, site, builder.handed)
        run = _Run(study, record, site, trainers, lease, progress)
        run.work(workers if builder.handed is None else None)
    return study


def _data_folder(site: Site, study: object) -> Path:
    local = site.artifacts if isinstance(site.artifacts, Path) else site.project / "artifacts"
    return local / str(study)


def _split_columns(split: object) -> list[str]:
    named = split if isinstance(split, Mapping) else {}
    return [str(named[key]) for key in ("column", "group", "time") if key in named]


def _section(given: object) -> Any:
    """A section of the study file; what is none is told as in a file."""
    return given if given is not None else {}


def _with(section: Any, **entries: Any) -> Any:
    """The section with entries that were given as arguments."""
    if not isinstance(section, Mapping):
        return section
    given = {key: value for key, value in entries.items() if value is not None}
    twice = sorted(section.keys() & given.keys())
    own = [key for key in twice if key != "split"]
    if own:
        raise UsageError(f"{own[0]} is given twice, as an argument and inside of a mapping")
    if twice and isinstance(given["split"], Mapping):
        # Parts that are ready have named their files there.
        given["split"] = {**given["split"], **section["split"]}
    return {**section, **given}


def _study_file(**sections: Any) -> StudyFile:
    return read_study_values(_plain({"version": 1, **sections}), "hpo.tune")


def _plain(value: Any) -> Any:
    """As a study file would hold it: no NumPy scalars, paths or tuples."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def _submit(
    file: StudyFile, given: DataInput, site: Site, builder: FoundBuilder, trainers: Trainers
) -> StudyRecord:
    """The study, with its data written; when it can't be made, nothing is left behind."""
    written = given.write()
    try:
        record = submit_file(file, site.url, site.project, trainers, _warn, DB_TIMEOUT)
        _check_same(record, builder)
        return record
    except BaseException:
        for path in written:
            remove_with_folders(path, 2)
        raise


def _check_same(record: StudyRecord, builder: FoundBuilder) -> None:
    """A study that is finished is opened without a look at its builder."""
    here = builder.handed
    if here is not None and record.facts.builder != here.source_hash:
        raise StudyMismatchError(
            f"the study {record.name!r} exists, and is finished, with another source of "
            f"{builder.reference.partition(':')[2]}: give this one another name"
        )


def _warn(words: str) -> None:
    # At the line that has called `tune`.
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("hpo."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(words, stacklevel=depth)


class _Run:
    """Works on the study until it is finished."""

    def __init__(
        self,
        study: Study,
        record: StudyRecord,
        site: Site,
        trainers: Trainers,
        lease: float,
        progress: bool,
    ) -> None:
        self._study = study
        self._record = record
        self._site = site
        self._trainers = trainers
        self._lease = lease
        self._progress = progress

    def work(self, processes: int | None) -> None:
        """Works with so many processes; None: in this one.

        Raises:
            KeyboardInterrupt, SystemExit: A signal has arrived; the trial was given back.
        """
        self._greet(self._study.status)
        with _signals() as interruption, self._display() as show:
            database = Database(self._site.url, patience=DB_TIMEOUT, hurry=interruption.stop)
            try:
                end = self._run(database, processes, interruption, show)
            except StudyStoppedError as error:
                raise StudyStoppedError(f"{error}, in Python: {self._resuming()}") from None
            finally:
                database.close()
        if end.interrupted:
            self._say(
                f"interrupted; {end.snapshot.finished} of {end.snapshot.trials} trials are "
                "finished. The same call goes on from here."
            )
            raise KeyboardInterrupt if interruption.by_user else SystemExit(128 + signal.SIGTERM)
        if end.snapshot.timed_out:
            self._say(f"{time_limit_words(end.snapshot)}, in Python: study.resume()")
        else:
            self._say(f"the study {self._record.name!r} is finished: {in_words(end.snapshot)}")
        if end.snapshot.best is None:
            self._warn_of_failures()

    def _warn_of_failures(self) -> None:
        try:
            self._study.best  # noqa: B018
        except NoUsableTrialError as error:
            _warn(str(error))

    def _resuming(self) -> str:
        return f"hpo.open_study({self._record.name!r}).resume(), and the same call again"

    def _run(
        self,
        database: Database,
        processes: int | None,
        interruption: Interruption,
        show: Callable[[Snapshot], None],
    ) -> RunEnd:
        record, site = self._record, self._site
        if processes is not None:
            paths = StudyPaths(site.artifacts, record.name, site.project, record.mark)
            log = paths.log("workers")
            options = LaunchOptions(
                record.name,
                site.url,
                site.project,
                site.artifacts_text,
                processes,
                self._lease,
                self._trainers.address,
                log,
            )
            with LocalWorkers(options) as local:
                return work_through(database, record, local, interruption, show)
        worker = WorkerOptions(site.project, site.artifacts, self._lease, available_cores())
        return attend(
            database,
            record,
            lambda: InProcessWorker(site.url, record, worker, self._trainers),
            interruption,
            show,
        )

    def _greet(self, snapshot: Snapshot) -> None:
        begun = snapshot.finished or snapshot.running or snapshot.waiting
        if begun and snapshot.state == "running":
            self._say(
                f"going on with the study {snapshot.name!r}: {snapshot.finished} of "
                f"{snapshot.trials} trials are finished"
            )

    @contextmanager
    def _display(self) -> Iterator[Callable[[Snapshot], None]]:
        if not self._progress:
            with _silent_logs():
                yield lambda _snapshot: None
            return
        with progress_display(error_console()) as display:
            yield display.show

    def _say(self, words: str) -> None:
        if self._progress:
            say(words)


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Logs go where the user has said; nobody has said, and Python writes warnings to stderr."""
    logger, handler = logging.getLogger("hpo"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _signals() -> Iterator[Interruption]:
    """Ctrl-C gives the trial back first; a second one does not wait for that."""
    # Python tells signals to the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        yield Interruption()
        return
    with interruptible(again=_raise_interrupt) as interruption:
        yield interruption


def _raise_interrupt() -> None:
    raise KeyboardInterrupt
