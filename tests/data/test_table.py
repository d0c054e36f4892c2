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

from hpo.data.columns import MISSING
from hpo.data.raw import RawData
from hpo.data.sources import load_source
from hpo.data.splits import split_rows
from hpo.data.tablefile import read_frame
from hpo.errors import DataError
from hpo.spec.models import DataSpec, Split
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
    people["rooms"] = [f"{row % 7 + 10}" for row in range(ROWS)]
    people["street"] = pd.Categorical((np.arange(ROWS) % 5).astype(str))
    raw = load(people, "parquet")
    assert (kinds(raw)["rooms"], kinds(raw)["street"]) == ("numeric", "categorical")
    assert any("'rooms' holds numbers as texts" in words for words in raw.warnings)
    assert not any("'street'" in words for words in raw.warnings)
    codes = load(people, "parquet", source={"columns": {"rooms": "categorical"}})
    assert isinstance(codes.x, dict)
    assert codes.x["rooms"][:2].tolist() == ["10", "11"]


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
        ("table.csv", b"a,b\n\xff\xfe,2\n", r"table\.csv can't be read as text in UTF-8\. Save it"),
        ("table.csv", "a,b\n1,2\n".encode("utf-16"), r"in UTF-8\. Save it as UTF-8"),
        ("table.csv", "a,b\nZürich,2\n".encode("latin-1"), r"in UTF-8\. Save it as UTF-8"),
        ("table.csv", b"a;b\n1,5;2\n", r"semicolons between the names; a \.csv file has commas"),
        ("table.csv", b",,\n1,2,3\n", "no column"),
        ("table.tsv", b"a,b\n1,2\n", r"commas between the names; a \.tsv file has tabs"),
        (
            "table.csv",
            b"5.1,3.5,1.4,setosa\n4.9,3.0,1.4,setosa\n",
            "If its first line holds values",
        ),
        ("table.csv", b"5.1,0.2,0.2\n4.9,3.0,1.4\n", "named '0.2'.*If its first line holds values"),
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
    people.loc[3, "double"] = 1
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


ZIPS = ["01017", "1017", "02134", "99501"] * (ROWS // 4)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("said", ["categorical", "text", None])
def test_a_code_keeps_its_zeros(load: Load, tmp_path: Path, said: str | None, kind: str) -> None:
    from hpo.data.rows import read_rows

    frame = pd.DataFrame({"zip": ZIPS, "y": ["a", "b"] * (ROWS // 2)})
    raw = load(frame, kind, source={"columns": {"zip": said} if said else {}})
    assert isinstance(raw.x, dict)
    assert raw.x["zip"].tolist() == ZIPS
    assert kinds(raw) == {"zip": said or "categorical"}
    words = "'zip' holds digits with zeros before them, such as '01017'.*zip: numeric"
    assert any(re.search(words, each) for each in raw.warnings) == (said is None)
    frame[:2].to_csv(tmp_path / "rows.csv", index=False)
    rows = read_rows(tmp_path / "rows.csv", raw.form, "x")
    assert isinstance(rows, dict)
    assert rows["zip"].tolist() == ZIPS[:2]


def test_a_file_to_predict_from_is_read_as_the_one_of_the_training(
    load: Load, tmp_path: Path
) -> None:
    from hpo.data.rows import read_rows

    frame = pd.DataFrame({"month": np.arange(ROWS) % 12, "y": ["a", "b"] * (ROWS // 2)})
    raw = load(frame, source={"columns": {"month": "categorical"}})
    (tmp_path / "rows.csv").write_text("month\n01\n11\n")
    rows = read_rows(tmp_path / "rows.csv", raw.form, "x")
    assert isinstance(rows, dict)
    assert rows["month"].tolist() == ["1", "11"]


def test_zeros_before_an_id_and_before_numbers(load: Load) -> None:
    frame = pd.DataFrame(
        {
            "id": [f"{row:04}" for row in range(ROWS)],
            "hour": [f"{row % 24:02}" for row in range(ROWS)],
            "dose": [f"{row % 7 + 0.5:05}" for row in range(ROWS)],
            "y": ["07", "7"] * (ROWS // 2),
        }
    )
    raw = load(frame, source={"columns": {"hour": "numeric"}})
    assert kinds(raw) == {"hour": "numeric", "dose": "numeric"}
    assert any("'id' has another value in every row" in words for words in raw.warnings)
    assert sorted(set(raw.y)) == ["07", "7"]
    counted = load(frame.assign(y=frame["hour"]), task="regression", split={"time": "hour"})
    assert counted.y.dtype.kind == "i"
    assert counted.columns["hour"].dtype.kind == "i"


def test_names_are_different_where_their_spelling_is(load: Load) -> None:
    versions = ["1.1", "1.10", "2.0", "3.5"] * (ROWS // 4)
    frame = pd.DataFrame({"version": versions, "size": [1.5, 2.0] * (ROWS // 2)})
    frame["y"] = ["a", "b"] * (ROWS // 2)
    columns = {"version": "categorical", "size": "categorical"}
    raw = load(frame, source={"columns": columns})
    grouped = load(frame, split={"group": "version"})
    assert isinstance(raw.x, dict)
    for array in (raw.x["version"], grouped.columns["version"]):
        assert array.tolist() == versions
    # What told values apart as numbers is read as before.
    assert sorted(set(raw.x["size"])) == ["1.5", "2"]


def test_one_value_and_gaps_is_a_category(people: pd.DataFrame, load: Load) -> None:
    for name, value in {"flag": "x", "one": 1, "true": True}.items():
        people[name] = pd.Series([value, None] * (ROWS // 2), dtype=object)
    raw = load(people)
    assert isinstance(raw.x, dict)
    for name in ("flag", "one", "true"):
        assert kinds(raw)[name] == "categorical"
        assert len(set(raw.x[name])) == 2
        assert MISSING in raw.x[name]
        assert not any(f"'{name}' is constant" in words for words in raw.warnings)
    assert any("'one' has one value, '1.0', or none" in words for words in raw.warnings)
    dropped = load(people, preprocess={"missing": "drop"})
    assert len(dropped.y) == ROWS
    assert "flag" not in kinds(dropped)
    assert any("'flag' has one value, 'x', or none, and is left" in w for w in dropped.warnings)


def test_dropped_rows_are_counted(people: pd.DataFrame, load: Load) -> None:
    people.loc[[1, 3], "age"] = np.nan
    raw = load(people, preprocess={"missing": "drop"})
    assert "2 of 40 rows have values missing and are dropped" in raw.warnings
    people["age"] = people["age"].where(people.index % 2 == 0)
    people["job"] = people["job"].where(people.index % 2 == 1)
    with pytest.raises(DataError, match="all rows have values missing"):
        load(people, preprocess={"missing": "drop"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"exclude": ["age"], "features": ["age", "job"]}, "'age' stands in `exclude` and in `fea"),
        ({"exclude": ["y"]}, "'y' stands in `exclude` and in `target`"),
        ({"columns": {"y": "numeric"}}, "`columns` says what the target 'y' holds"),
    ],
)
def test_settings_that_contradict_each_other(
    people: pd.DataFrame, load: Load, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(people, source=source)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1], [0, 1]), ([0.0, 1.0, None], [0, 1, None]), (["True", "false"], [1, 0])],
)
def test_truth_values(
    people: pd.DataFrame, load: Load, values: list[Any], expected: list[Any]
) -> None:
    people["member"] = (values * ROWS)[:ROWS]
    raw = load(people, source={"columns": {"member": "boolean"}})
    assert isinstance(raw.x, dict)
    assert [None if np.isnan(v) else v for v in raw.x["member"][: len(expected)]] == expected
    people["member"] = [3.0, *values * ROWS][:ROWS]
    with pytest.raises(DataError, match=r"'member' should be boolean.*3.* in row 0.*true or false"):
        load(people, source={"columns": {"member": "boolean"}})


@pytest.mark.parametrize(
    ("spelled", "words"),
    [
        (lambda day: f"{day:%d.%m.%Y}", "dates are not spelled.*'01.01.2024'.*as 2026-11-22"),
        (lambda day: f"{day:%m/%d/%Y 08:30}", "dates are not spelled.*'01/01/2024 08:30'"),
        (lambda day: f"{day:%d %b %Y}", "dates are not spelled.*'01 Jan 2024'"),
        (lambda day: f"{day:%Y-%m-%d}" if day.day > 1 else "2024-02-31", "no dates such as 2026"),
        (lambda day: f"{day.day / 4:.2f}".replace(".", ","), "numbers are not.*'0,25'.*decimal p"),
        (lambda day: f"${day.day / 4:.2f}", r"numbers are not spelled as expected.*'\$0.25'"),
        (lambda day: f"{day.day * 1000:,} EUR", "numbers are not spelled as expected.*'1,000 EUR'"),
    ],
)
@pytest.mark.parametrize("unique", [True, False])
def test_dates_and_numbers_in_other_spellings(
    people: pd.DataFrame, load: Load, spelled: Any, words: str, unique: bool
) -> None:
    days = pd.date_range("2024-01-01", periods=28)
    rows = 28 if unique else ROWS
    frame = people[:rows].assign(odd=[spelled(days[row % 28]) for row in range(rows)])
    found = [each for each in load(frame).warnings if re.search(words, each)]
    assert len(found) == 1
    assert ("column 'odd' is taken as an id, and left out" in found[0]) == unique


@pytest.mark.parametrize("values", [["A-1", "B-2"], ["08:30", "09:15"], ["10.0.0.1", "10.0.0.2"]])
def test_other_texts_are_what_they_are(people: pd.DataFrame, load: Load, values: list[str]) -> None:
    people["code"] = values * (ROWS // 2)
    assert not any("'code'" in words for words in load(people).warnings)


def test_many_values_for_few_rows(people: pd.DataFrame, load: Load) -> None:
    people["street"] = [f"s{row * 3 // 4}" for row in range(ROWS)]
    words = "'street' has 30 different values in 40 rows, each of which becomes a feature"
    assert any(words in each for each in load(people).warnings)
    people["street"] = [f"s{row % 20}" for row in range(ROWS)]
    assert not any("'street'" in each for each in load(people).warnings)


def test_numbers_that_float32_merges(people: pd.DataFrame, load: Load) -> None:
    people["seconds"] = 1_700_000_000 + 10 * np.arange(ROWS)[::-1]
    people["moment"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(ROWS), "s")
    found = load(people).warnings
    for name in ("seconds", "moment"):
        assert any(f"'{name}' has 40 different values, of which float32" in w for w in found)
    people["seconds"] = people["seconds"] - 1_700_000_000
    assert not any("'seconds'" in words for words in load(people).warnings)


def test_a_number_that_is_too_large_is_shown(people: pd.DataFrame, load: Load) -> None:
    people.loc[3, "age"] = 1e39
    with pytest.raises(DataError, match=r"'age' has 1 of 40 .* the first is 1e\+39 in row 3"):
        load(people)


def test_a_value_is_shown_as_it_stands_in_the_file(people: pd.DataFrame, load: Load) -> None:
    people["house"] = 26
    with pytest.raises(DataError, match=r"'house' should be date.*the first is 26 in row 0"):
        load(people, source={"columns": {"house": "date"}})


def test_texts_that_count_as_missing_are_named(people: pd.DataFrame, load: Load) -> None:
    people["y"] = ["None", "some"] * (ROWS // 2)
    with pytest.raises(
        DataError, match=r"20 of 40 values missing.*texts such as None, NA and null"
    ):
        load(people)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_without_a_group(people: pd.DataFrame, load: Load, kind: str) -> None:
    for name, values in {"job": people["job"], "age": people["age"]}.items():
        gaps = people.assign(**{name: values.where(people.index != 5)})
        raw = load(gaps, kind, split={"group": name})
        with pytest.raises(DataError, match=r"`split.group` is missing in 1 of 40 rows.*row 5"):
            split_rows(ROWS, Split(group=name), columns=raw.columns)
