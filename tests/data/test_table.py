"""Tables: what is read off the columns, what is refused, what is left out with a word."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.data.raw import RawData
from hpo.data.sources import load_source
from hpo.data.sources.table import read_frame
from hpo.errors import DataError
from hpo.spec.models import DataSpec
from tests.conftest import ROOT

Load = Callable[..., RawData]
ROWS = 40


@pytest.fixture
def people() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "id": np.arange(100, 100 + ROWS),
            "age": rng.normal(40, 10, ROWS).round(1),
            "job": rng.choice(["chef", "nurse"], ROWS),
            "member": rng.choice([True, False], ROWS),
            "joined": (pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 99, ROWS), "D"))
            .strftime("%Y-%m-%d")
            .to_numpy(),
            "note": [
                f"{a} was rather {b} indeed" for a, b in rng.choice(list("abcdefgh"), (ROWS, 2))
            ],
            "constant": 1,
            "y": rng.choice(["no", "yes"], ROWS),
        }
    )


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_frame(frame: pd.DataFrame, kind: str = "csv", **section: Any) -> RawData:
        path = tmp_path / f"table.{kind}"
        frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
        source = {"type": "table", "path": path.name, "target": "y", **section.pop("source", {})}
        return load_source(DataSpec.model_validate({"source": source, **section}), tmp_path)

    return load_frame


def kinds(raw: RawData) -> dict[str, str]:
    return {name: column["kind"] for name, column in raw.form["columns"].items()}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_kinds_are_read_off_the_values(people: pd.DataFrame, load: Load, kind: str) -> None:
    raw = load(people, kind)
    assert kinds(raw) == {
        "age": "numeric",
        "job": "categorical",
        "member": "boolean",
        "joined": "date",
        "note": "text",
    }
    assert isinstance(raw.x, dict)
    assert {name: array.dtype.kind for name, array in raw.x.items()} == {
        "age": "f",
        "job": "U",
        "member": "f",
        "joined": "f",
        "note": "U",
    }
    assert raw.x["joined"][0] == (pd.Timestamp(people["joined"][0]) - pd.Timestamp(0)).days
    assert raw.y.tolist() == people["y"].tolist()


def test_an_id_and_a_constant_are_left_out_with_a_word(people: pd.DataFrame, load: Load) -> None:
    found = load(people).warnings
    assert any("'id' has another value in every row" in words for words in found)
    assert any("'constant' is constant" in words for words in found)
    kept = load(people, source={"columns": {"id": "numeric"}})
    assert "id" in kinds(kept)
    assert not any("'id'" in words for words in kept.warnings)


def test_the_study_file_has_the_say(people: pd.DataFrame, load: Load) -> None:
    columns = {"age": "ignore", "joined": "categorical", "job": {"kind": "categorical", "most": 2}}
    raw = load(people, source={"columns": columns, "exclude": ["note"]})
    assert kinds(raw) == {"job": "categorical", "member": "boolean", "joined": "categorical"}
    assert load(people, source={"features": ["age"]}).form["columns"].keys() == {"age"}


def test_numbers_that_are_python_objects(people: pd.DataFrame, load: Load) -> None:
    people["age"] = [Decimal(str(age)) for age in people["age"]]
    people.loc[2, "age"] = None
    raw = load(people, "parquet", source={"exclude": ["id"]})
    assert isinstance(raw.x, dict)
    assert raw.x["age"].dtype == np.float32
    assert np.flatnonzero(np.isnan(raw.x["age"])).tolist() == [2]
    people["y"] = [Decimal(row) / 3 for row in range(ROWS)]
    assert load(people, "parquet").y.dtype.kind == "f"


def test_numbers_in_texts_and_in_categories(people: pd.DataFrame, load: Load) -> None:
    people["rooms"] = [f"{row % 7:02}" for row in range(ROWS)]
    people["street"] = pd.Categorical((np.arange(ROWS) % 5).astype(str))
    raw = load(people, "parquet")
    assert (kinds(raw)["rooms"], kinds(raw)["street"]) == ("numeric", "categorical")
    assert any("'rooms' holds numbers as texts" in words for words in raw.warnings)
    assert not any("'street'" in words for words in raw.warnings)
    codes = load(people, "parquet", source={"columns": {"rooms": "categorical"}})
    assert isinstance(codes.x, dict)
    assert codes.x["rooms"][:2].tolist() == ["00", "01"]


@pytest.mark.parametrize(
    ("value", "words"),
    [([1, 2], "several values"), ({"a": 1}, "several values"), (b"\xff\x00", "bytes")],
)
def test_values_that_have_no_place_in_a_table(
    people: pd.DataFrame, load: Load, value: Any, words: str
) -> None:
    people["more"] = [None, *[value] * (ROWS - 1)]
    message = f"column 'more' holds {words} in row 1, counted from 0"
    for columns in ({}, {"more": "numeric"}, {"more": "categorical"}):
        with pytest.raises(DataError, match=message):
            load(people, "parquet", source={"columns": columns})
    assert "more" not in kinds(load(people, "parquet", source={"exclude": ["more"]}))
    assert "more" not in kinds(load(people, "parquet", source={"columns": {"more": "ignore"}}))
    with pytest.raises(DataError, match=message):
        load(people, "parquet", split={"group": "more"})
    people["y"] = people.pop("more")
    with pytest.raises(DataError, match=f"column 'y' holds {words} in row 1"):
        load(people, "parquet")


def test_a_column_without_any_value(people: pd.DataFrame, load: Load) -> None:
    people["empty"] = np.nan
    raw = load(people)
    assert "empty" not in kinds(raw)
    assert any("'empty' has no value in any row" in words for words in raw.warnings)


def test_the_texts_that_mean_missing_are_documented(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "study-file.md").read_text()
    sentence = text.partition("an empty cell is missing, and so is one of")[2].partition(". Where")[
        0
    ]
    listed = re.findall(r"`([^`]+)`", sentence)
    assert {*listed, ""} == set(pd._libs.parsers.STR_NA_VALUES)
    file = tmp_path / "table.csv"
    file.write_text("a,b\n" + "".join(f"{word},1\n" for word in listed))
    assert read_frame(file)["a"].isna().all()


def test_what_is_missing(people: pd.DataFrame, load: Load) -> None:
    people.loc[[1, 3], "age"] = np.nan
    people.loc[2, "job"] = None
    raw = load(people)
    assert isinstance(raw.x, dict)
    assert np.flatnonzero(np.isnan(raw.x["age"])).tolist() == [1, 3]
    assert raw.x["job"][2] == "[missing]"
    dropped = load(people, preprocess={"missing": "drop"})
    assert len(dropped.y) == ROWS - 3


def test_numbers_as_categories_have_no_point(people: pd.DataFrame, load: Load) -> None:
    people["rooms"] = [1.0, 2.0, np.nan, 3.0] * (ROWS // 4)
    raw = load(people, source={"columns": {"rooms": "categorical"}})
    assert isinstance(raw.x, dict)
    assert raw.x["rooms"][:4].tolist() == ["1", "2", "[missing]", "3"]


def test_several_targets(people: pd.DataFrame, load: Load) -> None:
    people["weight"] = people["age"] * 2
    raw = load(people, source={"target": ["age", "weight"]})
    assert raw.y.shape == (ROWS, 2)
    assert raw.class_names == ("age", "weight")


def test_split_columns_are_no_features(people: pd.DataFrame, load: Load) -> None:
    raw = load(people, split={"time": "joined"})
    assert "joined" not in kinds(raw)
    assert raw.columns["joined"].dtype.kind == "M"
    people["joined"] = people["joined"].where(people.index != 5)
    raw = load(people, split={"time": "joined"})
    assert np.isnat(raw.columns["joined"]).nonzero()[0].tolist() == [5]
    both = load(people, split={"group": "job"}, source={"features": ["age", "job"]})
    assert "job" in kinds(both)


def test_files_of_their_own_for_validation_and_test(
    people: pd.DataFrame, load: Load, tmp_path: Path
) -> None:
    people[:7].to_csv(tmp_path / "late.csv", index=False)
    raw = load(people, split={"test": "late.csv"})
    assert raw.parts is not None
    assert raw.parts.tolist() == [""] * ROWS + ["test"] * 7
    people[:7].drop(columns="job").to_csv(tmp_path / "late.csv", index=False)
    with pytest.raises(DataError, match=r"late\.csv has no column 'job', which table\.csv has"):
        load(people, split={"test": "late.csv"})


def test_a_number_among_texts_is_told(people: pd.DataFrame, load: Load) -> None:
    people["age"] = people["age"].astype(str)
    people.loc[5, "age"] = "forty"
    raw = load(people)
    assert any(
        "1 of 40 values are no numbers, the first is 'forty' in row 5" in w for w in raw.warnings
    )
    with pytest.raises(DataError, match=r"'age' should be numeric, but 1 of 40.*'forty' in row 5"):
        load(people, source={"columns": {"age": "numeric"}})


@pytest.mark.parametrize(
    ("kind", "expected"), [("boolean", "true or false"), ("date", "2026-11-22")]
)
def test_values_of_another_kind(people: pd.DataFrame, load: Load, kind: str, expected: str) -> None:
    with pytest.raises(DataError, match=rf"'job' should be {kind}.*Expected .*{expected}"):
        load(people, source={"columns": {"job": kind}})


def test_a_column_that_has_the_answer(people: pd.DataFrame, load: Load) -> None:
    people["verdict"] = people["y"].map({"no": "red", "yes": "green"})
    assert any(
        "column 'verdict' tells the target without exception" in w for w in load(people).warnings
    )
    people["number"] = people["y"].argsort().argsort() * 3
    found = load(people).warnings
    assert any("'number' tells the target by ranges of its own" in words for words in found)
    people.loc[people["y"].argmin(), "number"] = 1000
    assert not any("'number'" in words for words in load(people).warnings)
    people["y"] = np.linspace(0, 1, ROWS)
    people["double"] = people["y"] * 2 + 1
    assert any(
        "column 'double' tells the target almost exactly" in w for w in load(people).warnings
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"target": "z"}, "no column 'z'; it has: id, age"),
        ({"target": "ages"}, "Did you mean 'age'?"),
        ({"features": ["age", "hob"]}, "no column 'hob'"),
        ({"columns": {"agee": "numeric"}}, "no column 'agee'"),
        ({"features": ["age", "y"]}, "target 'y' is among the features"),
        ({"features": ["constant"]}, "no column is left to learn from"),
        ({"target": ["age", "job"]}, "several columns, so all of them must be numbers"),
    ],
)
def test_columns_that_are_not_there(
    people: pd.DataFrame, load: Load, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        load(people, source=source)


def test_a_gap_in_the_target(people: pd.DataFrame, load: Load) -> None:
    people.loc[[4, 6], "y"] = None
    with pytest.raises(DataError, match="'y' has 2 of 40 values missing, the first in row 4"):
        load(people)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", b"", "can't be read as a table: No columns"),
        ("table.csv", b"a,y\n", r"table\.csv: expected at least one row"),
        ("table.csv", b"a,b\n1,2\n1,2,3,4\n", "can't be read as a table: .*line 3"),
        ("table.csv", b"a,b\n\xff\xfe,2\n", "can't be read as a table: .*codec"),
        ("table.parquet", b"PAR1 no", "can't be read as a table"),
        ("table.xls", b"", r"ends in one of \.csv, \.tsv, \.parquet"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    source = {"type": "table", "path": name, "target": "y"}
    data = DataSpec.model_validate({"source": source})
    with pytest.raises(DataError, match=message):
        load_source(data, tmp_path)


def test_a_folder_that_holds_no_table(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").mkdir()
    source = {"type": "table", "path": "table.parquet", "target": "y"}
    with pytest.raises(DataError, match=r"table\.parquet has no columns"):
        load_source(DataSpec.model_validate({"source": source}), tmp_path)


def test_an_infinite_target_is_left_to_the_checks(people: pd.DataFrame, load: Load) -> None:
    people["y"] = np.linspace(0, 1, ROWS)
    people.loc[3, "y"] = np.inf
    people["double"] = people["y"] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = load(people)
    assert any("'double' tells the target almost exactly" in words for words in raw.warnings)


def test_no_file(tmp_path: Path) -> None:
    data = DataSpec.model_validate({"source": {"type": "table", "path": "no.csv", "target": "y"}})
    with pytest.raises(DataError, match=r"not found: .*no\.csv.*relative to the project folder"):
        load_source(data, tmp_path)


CODES = {
    "code": ["01", "02", "A3", "A4"] * 10,
    "flag": ["true", "false", "maybe", "no"] * 10,
    "size": ["0.5", "1.0", "2.0", "1.0"] * 10,
    "y": ["a", "b"] * 20,
}


def test_what_a_value_is_called_does_not_depend_on_other_rows(load: Load, tmp_path: Path) -> None:
    """pandas would read a file of 01 and 02 as numbers, and the model would know neither."""
    from hpo.data.rows import read_rows

    raw = load(pd.DataFrame(CODES), source={"columns": {"size": "categorical"}})
    file = tmp_path / "rows.csv"
    file.write_text("code,flag,size\n01,true,1.0\n02,false,2\n")
    rows = read_rows(file, raw.form, "x")
    assert isinstance(rows, dict)
    assert isinstance(raw.x, dict)
    for name, values in rows.items():
        assert set(values) <= set(raw.x[name])


def test_nor_does_it_in_a_part_with_a_file_of_its_own(load: Load, tmp_path: Path) -> None:
    quarter = {name: CODES[name][:2] * 6 for name in ("code", "flag", "y")}
    pd.DataFrame({**quarter, "size": ["1"] * 12}).to_csv(tmp_path / "test.csv", index=False)
    raw = load(pd.DataFrame(CODES), split={"test": "test.csv"})
    assert isinstance(raw.x, dict)
    for name in ("code", "flag"):
        assert set(raw.x[name][40:]) == {CODES[name][0], CODES[name][1]}


def test_codes_of_digits_are_numbers_and_no_dates(load: Load) -> None:
    """Four digits would be a year to pandas, and eight a day."""
    codes = [str(1000 + 7 * row) for row in range(ROWS)]
    days = [str(20000101 + row % 9) for row in range(ROWS)]
    frame = pd.DataFrame({"postcode": codes, "day": days, "y": ["a", "b"] * (ROWS // 2)})
    raw = load(frame, "parquet")
    assert kinds(raw) == {"postcode": "numeric", "day": "numeric"}
    assert sum("holds numbers as texts" in words for words in raw.warnings) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a,y\n1,2,3\n", "two columns named 'a'"),
        ("y,a\n0,1,2\n1,2,3\n", "lines have more values than the first one has names"),
    ],
)
def test_a_first_line_that_does_not_name_the_columns(
    tmp_path: Path, text: str, message: str
) -> None:
    """pandas would make up names, or move all of them by one column."""
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_frame(tmp_path / "table.csv")


def test_lines_that_end_with_a_separator(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("y,a\n0,1,\n1,2,\n")
    assert read_frame(tmp_path / "table.csv").to_dict("list") == {"y": [0, 1], "a": [1, 2]}


@pytest.mark.parametrize("more", ["train", "test"])
def test_parts_have_the_same_columns(load: Load, tmp_path: Path, more: str) -> None:
    frames = {"train": pd.DataFrame(CODES), "test": pd.DataFrame(CODES)}
    frames[more]["late"] = range(ROWS)
    frames["test"].to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match=r"has no column 'late', which .* has; expected the same"):
        load(frames["train"], split={"test": "test.csv"})
