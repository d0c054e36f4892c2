"""Names and values of the user's stand on the screen as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpo.console import print_table
from hpo.study.snapshot import BestTrial
from hpo.watch.tables import best_table, status_table
from tests.watch.test_progress import SNAPSHOT


def test_brackets_and_colons_in_names_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    params = {"u[kind=a]": "[/gelu]", "weight [kg]": "[missing]", "face": ":smile:"}
    print_table(best_table(BestTrial(3, "COMPLETE", 0.5, params, {}), "val_[bold]"))
    shown = capsys.readouterr().out
    for text in (*params, *params.values(), "val_[bold]"):
        assert text in shown


def test_a_title_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(best_table(BestTrial(10, "COMPLETE", 0.5, {"x": 1}, {}), "auc"))
    assert "best configuration: trial 10" in capsys.readouterr().out


def test_brackets_in_the_reason_of_a_stop(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(status_table(replace(SNAPSHOT, state="stopped", reason="bad [/x] here")))
    assert "stopped: bad [/x] here" in capsys.readouterr().out
