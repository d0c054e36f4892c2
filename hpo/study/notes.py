"""Notes that optuna-dashboard shows beside a study."""

from __future__ import annotations

import json
from typing import Any

from hpo.study import tables as t
from hpo.study.database import Database
from hpo.study.leases import upsert

# optuna-dashboard cuts a note into attributes of this many characters.
_PIECE = 2045


def save_study_note(database: Database, study_id: int, text: str) -> None:
    """Sets the study's note, as `optuna_dashboard.save_note` does, without its imports."""
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    attrs: dict[str, Any] = {f"dashboard:note_str:{i}": piece for i, piece in enumerate(pieces)}
    attrs["dashboard:note_ver"] = 1
    rows = [
        {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attrs.items()
    ]
    table = t.study_system_attributes
    database.write(lambda connection: upsert(connection, table, rows, ("study_id", "key")))
