"""Studies in the database: create, open, extend, stop, resume.

A study is an ordinary Optuna study plus a row in `hpo_studies` (the spec and the facts that its
workers must agree on) and one row in `hpo_slots` for each trial of its budget. All of it is
written in one transaction, so a study exists wholly or not at all.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from hpo.errors import StudyMismatchError, StudyNotFoundError
from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.schema import create_schema
from hpo.study.urls import masked

if TYPE_CHECKING:
    from hpo.spec import StudySpec

__all__ = [
    "FOREIGN",
    "RUNNING",
    "STOPPED",
    "TIMED_OUT",
    "Facts",
    "StudyRecord",
    "check_same",
    "create_schema",
    "create_study",
    "open_study",
    "resume_study",
    "spec_differences",
    "stop_study",
    "study_names",
]

# The attribute of a study that stands in the same database and is run by somebody else.
FOREIGN = "run_by"
# The attribute of a study that tells its files from those of another study of its name.
_MARK = "hpo:mark"

RUNNING = "running"
STOPPED = "stopped"
# Stopped by its time limit.
TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Facts:
    """What every worker of a study must agree on, found before the study was created.

    Attributes:
        data: Fingerprint of the data, its split and its preprocessing.
        builder: Hash of the builder's source.
        optuna: Major version of Optuna.
        keras: Major version of Keras.
        signature: The data's signature as JSON, for whoever only reads.
    """

    data: str
    builder: str
    optuna: str
    keras: str
    signature: str

    def differences(self, other: Facts) -> list[str]:
        """The names of what differs and both values, in words."""
        names = {
            "data": "data fingerprint",
            "builder": "builder source",
            "optuna": "Optuna major version",
            "keras": "Keras major version",
        }
        return [
            f"{words}: the study has {getattr(self, name)}, here it is {getattr(other, name)}"
            for name, words in names.items()
            if getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands in the database.

    `spec_json` stays text until `spec` is asked for: reading a status needs no parsed spec.

    Attributes:
        mark: Random, made with the study: another one of this name, before it or in another
            database, has another. None for a study that was made before studies had one.
    """

    study_id: int
    name: str
    metric: str
    direction: str
    trials: int
    state: str
    reason: str | None
    spec_json: str
    facts_json: str
    mark: str | None

    @property
    def spec(self) -> StudySpec:
        from hpo.spec import StudySpec

        return StudySpec.from_json(self.spec_json)

    @property
    def facts(self) -> Facts:
        return Facts(**json.loads(self.facts_json))


def create_study(database: Database, spec: StudySpec, facts: Facts) -> StudyRecord:
    """Creates the study, or opens the one that exists if it is the same.

    More `trials` than the existing study has extend its budget, and another `timeout` starts its
    time limit anew: a study that the old one has stopped goes on.

    Raises:
        StudyMismatchError: A study of this name exists and differs.
    """
    try:
        database.write(lambda connection: _insert(connection, spec, facts))
    except IntegrityError:
        record = open_study(database, spec.name)
        check_same(record, spec, facts)
        if spec != record.spec:
            database.write(lambda connection: _extend(connection, record.study_id, spec))
    return open_study(database, spec.name)


def _insert(connection: sa.Connection, spec: StudySpec, facts: Facts) -> None:
    inserted = connection.execute(t.studies.insert().values(study_name=spec.name))
    assert inserted.inserted_primary_key is not None
    study_id = inserted.inserted_primary_key[0]
    _remove_orphans(connection, study_id)
    connection.execute(
        t.study_directions.insert().values(
            study_id=study_id, objective=0, direction=spec.objective.direction.upper()
        )
    )
    attributes = {"study:metric_names": [spec.objective.metric], _MARK: secrets.token_hex(4)}
    connection.execute(
        t.study_system_attributes.insert(),
        [
            {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ],
    )
    connection.execute(
        t.hpo_studies.insert().values(
            study_id=study_id,
            spec=spec.to_json(),
            facts=json.dumps(asdict(facts)),
            trials=spec.search.trials,
            metric=spec.objective.metric,
            state=RUNNING,
            created_at=t.clock(),
            deadline=_deadline(spec),
        )
    )
    _insert_slots(connection, study_id, range(spec.search.trials))


def _deadline(spec: StudySpec) -> sa.ColumnElement[float] | None:
    timeout = spec.search.timeout
    return None if timeout is None else t.clock() + timeout


def _remove_orphans(connection: sa.Connection, study_id: int) -> None:
    """Whoever deletes a study with Optuna leaves our rows, and SQLite gives its number again."""
    for table in t.metadata.sorted_tables:
        connection.execute(table.delete().where(table.c.study_id == study_id))


def _insert_slots(connection: sa.Connection, study_id: int, slots: range) -> None:
    rows = [
        {
            "study_id": study_id,
            "slot": slot,
            "state": "free",
            "token": 0,
            "exceptions": 0,
            "crashes": 0,
            "lost": 0,
        }
        for slot in slots
    ]
    if rows:
        connection.execute(t.hpo_slots.insert(), rows)


def _extend(connection: sa.Connection, study_id: int, spec: StudySpec) -> None:
    from hpo.spec import StudySpec

    row = t.hpo_studies.c.study_id == study_id
    study = t.hpo_studies.c
    query = sa.select(study.trials, study.spec, study.state).where(row).with_for_update()
    have, stored, state = connection.execute(query).one()
    if spec.search.trials < have:
        # Somebody else has extended it further in the meantime.
        return
    values: dict[str, object] = {"trials": spec.search.trials, "spec": spec.to_json()}
    if spec.search.timeout != StudySpec.from_json(stored).search.timeout:
        values["deadline"] = _deadline(spec)
        if state == TIMED_OUT:
            values |= {"state": RUNNING, "reason": None}
    connection.execute(t.hpo_studies.update().where(row).values(values))
    _insert_slots(connection, study_id, range(have, spec.search.trials))


def check_same(record: StudyRecord, spec: StudySpec, facts: Facts) -> None:
    """Raises StudyMismatchError, which names every difference, unless the study fits."""
    found = spec_differences(record.spec, spec) + record.facts.differences(facts)
    if spec.search.trials < record.trials:
        have, here = record.trials, spec.search.trials
        found.append(
            f"search.trials: the study has {have}, here it is {here}; only more is allowed"
        )
    if found:
        raise StudyMismatchError(
            f"the study {record.name!r} exists and differs:\n  "
            + "\n  ".join(found)
            + "\nGive this one another name, or undo the change to go on with the existing study."
        )


def spec_differences(stored: StudySpec, given: StudySpec) -> list[str]:
    """Dotted paths of what makes the two specs different studies, with both values."""
    if stored.fingerprint == given.fingerprint:
        return []
    ours, theirs = _flat(stored.model_dump(mode="json")), _flat(given.model_dump(mode="json"))
    ignored = {"search.trials", "search.timeout"}
    return [
        f"{path}: the study has {ours.get(path)}, here it is {theirs.get(path)}"
        for path in sorted(ours.keys() | theirs.keys())
        if path not in ignored and ours.get(path) != theirs.get(path)
    ]


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    leaves: dict[str, object] = {}
    for key, inner in value.items():
        leaves |= _flat(inner, f"{path}.{key}" if path else key)
    return leaves


def open_study(database: Database, name: str) -> StudyRecord:
    """The study of that name.

    Raises:
        StudyNotFoundError: There is none; the message lists those that exist.
        StudyMismatchError: There is one, but plain Optuna made it.
    """
    return database.read(lambda connection: _open(connection, database, name))


def _open(connection: sa.Connection, database: Database, name: str) -> StudyRecord:
    where = masked(database.url)
    if not sa.inspect(connection).has_table("hpo_studies"):
        raise StudyNotFoundError(
            f"there is no study {name!r}: the database {where} holds no studies of this service; "
            "check --storage (or HPO_STORAGE)"
        )
    attr = t.study_system_attributes.c
    query = (
        sa.select(
            t.studies.c.study_id,
            t.studies.c.study_name.label("name"),
            t.hpo_studies.c.metric,
            t.study_directions.c.direction,
            t.hpo_studies.c.trials,
            t.hpo_studies.c.state,
            t.hpo_studies.c.reason,
            t.hpo_studies.c.spec.label("spec_json"),
            t.hpo_studies.c.facts.label("facts_json"),
            attr.value_json.label("mark"),
        )
        .outerjoin(t.hpo_studies, t.hpo_studies.c.study_id == t.studies.c.study_id)
        .join(t.study_directions, t.study_directions.c.study_id == t.studies.c.study_id)
        .outerjoin(
            t.study_system_attributes,
            sa.and_(attr.study_id == t.studies.c.study_id, attr.key == _MARK),
        )
        # Of several objectives, which are none of this service's, one row has to do.
        .where(t.studies.c.study_name == name, t.study_directions.c.objective == 0)
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        names = ", ".join(_names(connection)) or "none"
        raise StudyNotFoundError(f"there is no study {name!r} in {where}; studies there: {names}")
    if row["spec_json"] is None:
        raise StudyMismatchError(_foreign(connection, name, where, row["study_id"]))
    mark = None if row["mark"] is None else json.loads(row["mark"])
    return StudyRecord(**{**row, "direction": str(row["direction"]).lower(), "mark": mark})


def _foreign(connection: sa.Connection, name: str, where: str, study_id: int) -> str:
    attr = t.study_user_attributes.c
    query = sa.select(attr.value_json).where(attr.study_id == study_id, attr.key == FOREIGN)
    maker = connection.execute(query).scalar_one_or_none()
    if maker is None:
        return f"the study {name!r} in {where} was not made by this service; choose another name"
    return (
        f"the study {name!r} in {where} belongs to {json.loads(maker)}, which runs its trials "
        "itself; look at it with: hpo dashboard"
    )


def study_names(database: Database) -> list[str]:
    """The names of all studies of this service in the database, oldest first."""

    def work(connection: sa.Connection) -> list[str]:
        if not sa.inspect(connection).has_table("hpo_studies"):
            return []
        return _names(connection)

    return database.read(work)


def _names(connection: sa.Connection) -> list[str]:
    query = (
        sa.select(t.studies.c.study_name)
        .join(t.hpo_studies, t.hpo_studies.c.study_id == t.studies.c.study_id)
        .order_by(t.studies.c.study_id)
    )
    return list(connection.execute(query).scalars())


def stop_study(database: Database, record: StudyRecord, reason: str) -> None:
    """No worker begins or goes on with a trial of the study from now on."""
    database.write(lambda c: _set_state(c, record, state=STOPPED, reason=reason))


def resume_study(database: Database, record: StudyRecord) -> None:
    """Workers may take its slots again.

    Its time limit, if it has one, and the count of equal failures in a row start anew.
    """

    def work(connection: sa.Connection) -> None:
        _set_state(connection, record, state=RUNNING, reason=None, deadline=_deadline(record.spec))
        failed = t.hpo_slots.c.failure.is_not(None)
        ours = t.hpo_slots.update().where(t.hpo_slots.c.study_id == record.study_id, failed)
        # It is what is counted. Of each trial the attribute `reason` says why it failed.
        connection.execute(ours.values(failure=None))

    database.write(work)


def _set_state(connection: sa.Connection, record: StudyRecord, **values: object) -> None:
    row = t.hpo_studies.c.study_id == record.study_id
    connection.execute(t.hpo_studies.update().where(row).values(**values))
