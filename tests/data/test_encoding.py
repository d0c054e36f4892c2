"""Columns of a table become numbers, the same in training and in an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.errors import DataError
from hpo.spec.models import Column, Preprocess

pytestmark = pytest.mark.keras

ROWS = 60
RNG = np.random.default_rng(8)
X = {
    "age": np.where(np.arange(ROWS) % 7 == 3, np.nan, RNG.normal(40, 9, ROWS)).astype(np.float32),
    "member": (RNG.random(ROWS) < 0.5).astype(np.float32),
    "joined": RNG.integers(18000, 20000, ROWS).astype(np.float32),
    "job": RNG.choice(["chef", "nurse", "[missing]", "été ü"], ROWS),
    "city/town": RNG.choice(["a", "b", "c"], ROWS),
    "note": np.array([f"very {w} indeed" for w in RNG.choice(["good", "bad"], ROWS)]),
}
KINDS = {
    "age": Column(kind="numeric"),
    "member": Column(kind="boolean"),
    "joined": Column(kind="date"),
    "job": Column(kind="categorical"),
    "city/town": Column(kind="categorical", encode="hash", bins=5),
    "note": Column(kind="text"),
}


def fit(columns: dict[str, Column], **section: Any) -> Any:
    from hpo.data.encoding import fit_table

    train = {name: X[name][:40] for name in columns}
    return fit_table(train, columns, Preprocess.model_validate(section))


def apply(columns: dict[str, Column], **section: Any) -> Any:
    return fit(columns, **section).apply({name: X[name] for name in columns})


def test_every_kind_in_one_vector() -> None:
    crosses = [{"columns": ["job", "city/town"], "bins": 7}]
    encoding = fit(KINDS, normalize="standard", crosses=crosses)
    out = encoding.apply(X)
    words = 1 + len({"very", "indeed", "good", "bad"})
    # Numbers, places in week and year, jobs and unknown, hashed cities, words, the cross.
    assert out.shape == (ROWS, 3 + 4 + 5 + 5 + words + 7)
    assert encoding.input_shape == out.shape[1:]
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def test_numbers_are_filled_in_and_normalized_on_train() -> None:
    out = apply({"age": KINDS["age"]}, normalize="standard")
    train = X["age"][:40]
    filled = np.where(np.isnan(train), np.nanmedian(train), train)
    np.testing.assert_allclose(out[:40].mean(), 0, atol=1e-5)
    expected = (np.nanmedian(train) - filled.mean()) / filled.std()
    np.testing.assert_allclose(out[3], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("rule", "value"), [("zero", 0.0), ("mean", float(np.nanmean(X["age"][:40])))]
)
def test_rules_for_missing_numbers(rule: str, value: float) -> None:
    assert apply({"age": KINDS["age"]}, missing=rule)[3, 0] == pytest.approx(value, rel=1e-6)


def test_a_value_that_train_has_not_is_unknown() -> None:
    encoding = fit({"job": KINDS["job"]})
    seen = encoding.apply({"job": np.array(["chef", "pilot", "poet"])})
    assert seen.sum(axis=1).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(seen[1], seen[2])
    assert not np.array_equal(seen[0], seen[1])


def test_the_most_frequent_values_are_kept() -> None:
    out = apply({"job": Column(kind="categorical", most=2)})
    assert out.shape == (ROWS, 3)


def test_embedded_columns_are_codes() -> None:
    columns = {"age": KINDS["age"], "job": Column(kind="categorical", encode="embed")}
    encoding = fit(columns)
    out = encoding.apply({name: X[name] for name in columns})
    assert encoding.input_shape == {"numeric": (1,), "job": ()}
    assert encoding.vocabulary_sizes == {"job": 5}
    assert out["job"].dtype.kind == "i"
    assert out["job"].shape == (ROWS,)
    assert set(out["job"]) <= set(range(5))


def test_a_missing_date_has_no_place_in_the_year() -> None:
    encoding = fit({"joined": KINDS["joined"]})
    out = encoding.apply({"joined": np.array([np.nan, 19000.0], np.float32)})
    assert out[0, 1:].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose((out[1, 1:3] ** 2).sum(), 1, rtol=1e-4)


def test_a_cross_of_what_is_no_category() -> None:
    crosses = [{"columns": ["job", "age"]}]
    with pytest.raises(
        DataError, match="names 'age', which is no categorical column; those are: job"
    ):
        fit({"age": KINDS["age"], "job": KINDS["job"]}, crosses=crosses)
    with pytest.raises(DataError, match=r"names 'age', .*; those are: job$"):
        fit({name: KINDS[name] for name in ("age", "job", "note")}, crosses=crosses)
    with pytest.raises(DataError, match=r"names 'job', .*; those are: none"):
        fit({"age": KINDS["age"]}, crosses=crosses)


def test_two_columns_of_one_input_name() -> None:
    from hpo.data.encoding import fit_table

    columns = {"a/b": Column(kind="numeric"), "a_b": Column(kind="numeric")}
    with pytest.raises(DataError, match="two columns would be the input 'a_b'"):
        fit_table(dict.fromkeys(columns, X["age"]), columns, Preprocess())


def test_a_saved_model_takes_raw_columns_and_does_the_same(tmp_path: Path) -> None:
    import keras

    from hpo.data.layers import raw_batches, raw_inputs

    encoding = fit(KINDS, normalize="robust")
    keras.Model(*raw_inputs(encoding)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    strange = {**X, "job": np.where(X["job"] == "chef", "unseen", X["job"])}
    for rows in (X, strange):
        np.testing.assert_allclose(
            loaded.predict(raw_batches(rows), verbose=0), encoding.apply(rows), rtol=1e-6
        )
