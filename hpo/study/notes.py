"""Notes that optuna-dashboard shows beside a study."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.writes import upsert

_VERSION = "dashboard:note_ver"
_TEXT = "dashboard:note_str:"
# optuna-dashboard cuts a note into attributes of this many characters.
_PIECE = 2045


def save_study_note(database: Database, study_id: int, text: str) -> None:
    """Sets the study's note, as `optuna_dashboard.save_note` does, without its imports."""
    database.write(lambda connection: _save(connection, study_id, text))


def put_before_note(system_attrs: dict[str, Any], text: str) -> None:
    """Puts a text before the note in a study's system attributes, for whoever only reads them."""
    system_attrs.setdefault(_VERSION, 0)
    first = f"{_TEXT}0"
    system_attrs[first] = text + system_attrs.get(first, "")


def _save(connection: sa.Connection, study_id: int, text: str) -> None:
    attr = t.study_system_attributes.c
    ours = attr.study_id == study_id
    connection.execute(
        t.study_system_attributes.delete().where(ours, attr.key.startswith(_TEXT, autoescape=True))
    )
    # optuna-dashboard refuses to overwrite a version that its reader has not seen.
    query = sa.select(attr.value_json).where(ours, attr.key == _VERSION)
    version = json.loads(connection.execute(query).scalar_one_or_none() or "0") + 1
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    attrs = {_VERSION: version} | {f"{_TEXT}{i}": piece for i, piece in enumerate(pieces)}
    rows = [
        {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attrs.items()
    ]
    upsert(connection, t.study_system_attributes, rows, ("study_id", "key"))
