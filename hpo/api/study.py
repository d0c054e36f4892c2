"""A study as Python sees it: where it stands, what is best, the trials, the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.api.randomness import kept_random_numbers
from hpo.artifacts import Place
from hpo.errors import UsageError
from hpo.export.exporting import export_best
from hpo.export.values import Bundle
from hpo.launch.places import artifacts_place, bundle_folder, storage_url
from hpo.space.names import builder_values
from hpo.study.database import Database
from hpo.study.snapshot import BestTrial, Snapshot, best_trial, take_snapshot
from hpo.study.studies import StudyRecord, resume_study
from hpo.study.studies import open_study as open_record
from hpo.usercode import HandedOver, handing_over
from hpo.watch.progress import in_words
from hpo.worker.inprocess import InProcessTrainers
from hpo.worker.trainers import Trainers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Site:
    """Where a study lies.

    Attributes:
        project: Folder that builder and data are resolved from.
        url: Of the database.
        artifacts: Folder or URL of checkpoints and pictures.
        artifacts_text: The same in the words that a worker process is told.
    """

    project: Path
    url: str
    artifacts: Place
    artifacts_text: str

    @classmethod
    def of(
        cls,
        project: str | Path | None,
        storage: str | None,
        artifacts: str | Path | None,
    ) -> Site:
        """The site for what a user gave; what was left out is as for the command.

        Raises:
            UsageError: The project is no folder, or the storage no text.
        """
        for name, given in (("project", project), ("artifacts", artifacts)):
            if not isinstance(given, str | Path | None):
                raise UsageError(f"{name} must be text or a path, received {type(given).__name__}")
        folder = Path(project or "").resolve()
        if not folder.is_dir():
            raise UsageError(f"the project folder {folder} is not there; make it, or name another")
        if not isinstance(storage, str | None):
            raise UsageError(
                "storage must be a database URL, such as 'sqlite:///hpo.db', or 'embedded'; "
                f"received {type(storage).__name__}"
            )
        url = storage_url(storage or os.environ.get("HPO_STORAGE"), folder)
        text = artifacts or os.environ.get("HPO_ARTIFACTS")
        place = artifacts_place(str(text) if text else None, folder)
        if isinstance(place, Path):
            place = place.resolve()
            text = str(place)
        # A URL stays as it is: written out again, it would lack its host or password.
        return cls(folder, url, place, str(text))


class Study:
    """A study in its database, and what came out of it so far.

    Made by `hpo.tune` and `hpo.open_study`. It reads the database anew each time and holds nothing
    open. Each property and method raises StorageError when the database is out of reach.
    """

    def __init__(self, record: StudyRecord, site: Site, builder: HandedOver | None = None) -> None:
        self._record = record
        self._site = site
        self._builder = builder

    def __repr__(self) -> str:
        return f"<hpo.Study {self.name!r}: {in_words(self.status)}>"

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self._record.name

    @property
    def status(self) -> Snapshot:
        """Where it stands: `state` is running, stopped or finished; counts, best value, times."""
        with self._opened() as database:
            return take_snapshot(database, self._record)

    @property
    def best(self) -> BestTrial:
        """The trial with the best value so far: `params`, `value`, `number`, `state`, `attrs`.

        `params` is what its model was built with, fixed values of the study included, by the names
        that the builder asks for: as `hp.values` of `keras_tuner.HyperParameters` they build the
        same model again.

        Raises:
            NoUsableTrialError: No finished trial has a value.
        """
        with self._opened() as database:
            found = best_trial(database, self._record)
        return replace(found, params=builder_values(found.params, self._record.spec.space))

    @property
    def trials(self) -> pd.DataFrame:
        """All trials, a row each, named as Optuna's `trials_dataframe` does.

        Columns: `number`, `state`, `value`, `datetime_start`, `duration`, `params_NAME` for each
        hyperparameter, `user_attrs_NAME` for epochs, seconds, model parameters, a failure's reason.
        """
        from hpo.watch.figures import trials_frame

        with self._opened() as database:
            return trials_frame(database, self._record)

    def resume(self) -> None:
        """Takes back that the study was stopped, or has stopped itself.

        Workers may take its trials again, and `hpo.tune`, called as before, goes on with it.
        """
        with self._opened() as database:
            resume_study(database, self._record)

    def export(self, folder: str | Path | None = None) -> Bundle:
        """Writes the best model, which takes raw input, with its config and metrics to a folder.

        Args:
            folder: `bundles/STUDY` in the project folder when left out; an older bundle there is
                replaced.

        Returns:
            The bundle's `folder`, and its metrics in `validation` and `test`, by name.

        Raises:
            NoUsableTrialError: No finished trial has a value.
            UsageError: The folder holds something that is not a bundle.
            HpoError: The model no longer reaches what the search reported.
        """
        site = self._site
        out = Path(folder) if folder else None
        target = bundle_folder(out, site.project, self.name).resolve()
        with self._opened() as database, opened_trainers(self._builder) as trainers:
            exported = export_best(
                database, self._record, site.project, site.artifacts, target, trainers
            )
        return exported.bundle

    def plot(self) -> Figure:
        """The values over time, the importance of each hyperparameter, and values against it."""
        from hpo.watch.figures import draw_study

        with self._opened() as database:
            return draw_study(database, self._record)

    @contextmanager
    def _opened(self) -> Iterator[Database]:
        database = Database(self._site.url)
        try:
            yield database
        finally:
            database.close()


def open_study(
    name: str,
    *,
    storage: str | None = None,
    artifacts: str | Path | None = None,
    project: str | Path | None = None,
) -> Study:
    """A study that exists, however it was made; nothing is created.

    Args:
        name: Of the study.
        storage: Database URL; `HPO_STORAGE`, else `hpo.db` in the project folder.
        artifacts: Folder or URL of checkpoints; `HPO_ARTIFACTS`, else `artifacts` in the project
            folder. For `export`.
        project: Folder that builder and data are resolved from; the working directory when left
            out.

    Raises:
        StudyNotFoundError: There is no such study, or no such database.
        StorageError: The database is out of reach.
    """
    site = Site.of(project, storage, artifacts)
    database = Database(site.url)
    try:
        return Study(open_record(database, name), site)
    finally:
        database.close()


@contextmanager
def opened_trainers(builder: HandedOver | None) -> Iterator[Trainers]:
    """Trainers that find the builder: processes, or threads where only this process has it."""
    if builder is None:
        with closing(Trainers(os.environ.get("HPO_FORKSERVER"))) as trainers:
            yield trainers
    else:
        with handing_over(builder), kept_random_numbers(), closing(InProcessTrainers()) as here:
            yield here
