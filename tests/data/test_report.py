from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpo.data.report import report_data
from hpo.errors import UsageError
from hpo.spec.models import DataSpec


@pytest.mark.keras
def test_a_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "age": [20.0, np.nan, 60.0, 40.0] * 10,
            "job": ["chef", "nurse", "nurse", None] * 10,
            "day": ["2026-01-01", "2026-03-01", "2026-02-01", None] * 10,
            "y": ["no", "yes"] * 20,
        }
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    data = DataSpec.model_validate(
        {"source": {"type": "table", "path": "table.csv", "target": "y"}}
    )
    report = report_data(data, tmp_path, tmp_path / "plots")
    assert report.classes == {"no": (12, 4, 4), "yes": (12, 4, 4)}
    age, day, job = report.columns
    assert (age.kind, age.low, age.high, age.different) == ("numeric", 20.0, 60.0, 3)
    assert (day.kind, day.low, day.high) == ("date", "2026-01-01", "2026-03-01")
    assert (job.kind, job.low, job.different) == ("categorical", "nurse", 2)
    gaps = [column.missing for column in report.columns]
    assert all(count > 0 for count in gaps)
    assert [file.name for file in report.files] == ["targets.png", "columns.png"]
    for file in report.files:
        with Image.open(file) as picture:
            assert min(picture.size) > 100


@pytest.mark.keras
def test_columns_that_are_empty_in_train(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "number": [None, None, 1.5, 2.5] * 10,
            "day": [None, None, "2026-03-01", "2026-02-01"] * 10,
            "part": ["train", "train", "validation", "test"] * 10,
            "y": np.arange(40.0),
        }
    )
    frame.to_csv(tmp_path / "table.csv", index=False)
    source = {"type": "table", "path": "table.csv", "target": "y"}
    data = DataSpec.model_validate({"source": source, "split": {"column": "part"}})
    report = report_data(data, tmp_path, None)
    found = [(each.kind, each.missing, each.low, each.high) for each in report.columns]
    assert found == [("date", 20, None, None), ("numeric", 20, None, None)]


def test_pictures_and_numbers(tmp_path: Path) -> None:
    data = DataSpec.model_validate(
        {
            "source": {"type": "sklearn", "name": "digits"},
            "preprocess": {"reshape": [8, 8, 1]},
        }
    )
    report = report_data(data, tmp_path, tmp_path / "plots")
    assert [file.name for file in report.files] == ["targets.png", "samples.png"]
    (x,) = report.columns
    assert (x.shape, x.low, x.high) == ((64,), 0, 16)
    regression = DataSpec.model_validate({"source": {"type": "sklearn", "name": "linnerud"}})
    report = report_data(regression, tmp_path, tmp_path / "plots")
    assert report.classes is None
    assert (tmp_path / "plots" / "columns.png").exists()


def test_nothing_is_drawn_unasked_or_where_it_can_not_be(tmp_path: Path) -> None:
    data = DataSpec.model_validate({"source": {"type": "sklearn", "name": "iris"}})
    assert report_data(data, tmp_path, None).files == ()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"can't write plots to .*file"):
        report_data(data, tmp_path, tmp_path / "file")
