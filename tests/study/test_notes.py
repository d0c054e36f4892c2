from __future__ import annotations

import optuna
import optuna_dashboard
import pytest
from optuna_dashboard._note import get_note

from hpo.study.database import Database
from hpo.study.notes import save_study_note
from tests.servers import Plain
from tests.study.rooms import new_study


@pytest.mark.parametrize("text", ["", "short **ünï**", "x" * 2045, "y" * 5000])
def test_dashboard_reads_the_note(text: str, database: Database, plain: Plain) -> None:
    record = new_study(database)
    save_study_note(database, record.study_id, text)
    assert get_note(optuna.load_study(study_name="digits", storage=plain(database))) == text


def test_shorter_note_replaces_a_longer_one(database: Database, plain: Plain) -> None:
    record = new_study(database)
    study = optuna.load_study(study_name="digits", storage=plain(database))
    optuna_dashboard.save_note(study, "z" * 7000)
    save_study_note(database, record.study_id, "short")
    assert get_note(study) == "short"
    optuna_dashboard.save_note(study, "from the dashboard")
    assert get_note(study) == "from the dashboard"


def test_note_touches_no_other_attribute_and_no_other_study(
    database: Database, plain: Plain
) -> None:
    one, two = new_study(database, name="one"), new_study(database, name="two")
    save_study_note(database, one.study_id, "first")
    save_study_note(database, two.study_id, "second")
    study = optuna.load_study(study_name="one", storage=plain(database))
    assert get_note(study) == "first"
    assert study.metric_names == ["val_accuracy"]
