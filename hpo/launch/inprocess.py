"""One worker in a thread of this process, with its trainer in another one."""

from __future__ import annotations

import threading

from hpo.launch.places import DB_TIMEOUT
from hpo.study.database import Database
from hpo.study.studies import StudyRecord
from hpo.worker.loop import Worker, WorkerOptions
from hpo.worker.trainers import Trainers


class InProcessWorker:
    """Works on a study until there is nothing left to do, or until it is told to stop."""

    def __init__(
        self, url: str, record: StudyRecord, options: WorkerOptions, trainers: Trainers
    ) -> None:
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._database = Database(url, patience=DB_TIMEOUT, hurry=self._stop)
        self._worker = Worker(self._database, record, options, trainers, self._stop)
        self._thread = threading.Thread(target=self._run, daemon=True, name="worker")
        self._thread.start()

    def tend(self, finished: int) -> bool:  # noqa: ARG002 - others count restarts with it
        """Whether it is still at work; raises what has ended it."""
        if self._thread.is_alive():
            return True
        if self._failure is not None:
            raise self._failure
        return False

    def stop(self) -> None:
        """Has it give its trial back, and waits until it has."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._worker.run()
        except Exception as error:  # noqa: BLE001 - raised by `tend`, in the caller's thread
            self._failure = error
        finally:
            self._database.close()
