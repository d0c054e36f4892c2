from __future__ import annotations

import numpy as np
import pytest

from hpo.data import DataSignature
from hpo.data.signature import fingerprint_of

CLASSES = DataSignature(
    task="multiclass",
    input_shape=(8, 8, 1),
    num_classes=3,
    num_outputs=3,
    class_names=("a", "b", "c"),
    rows=(60, 20, 20),
    class_counts=(20, 20, 20),
    fingerprint="0123456789abcdef",
)
VALUES = DataSignature("regression", (10,), None, 1, None, (60, 20, 20), None, "0" * 16)


@pytest.mark.parametrize("signature", [CLASSES, VALUES])
def test_json_round_trip(signature: DataSignature) -> None:
    text = signature.to_json()
    assert "\n" not in text
    assert DataSignature.from_json(text) == signature


def test_fingerprint_ignores_byte_order_and_layout() -> None:
    array = np.arange(12.0).reshape(3, 4)
    plain = fingerprint_of([array], {})
    assert fingerprint_of([array.astype(">f8")], {}) == plain
    assert fingerprint_of([np.asfortranarray(array)], {}) == plain


@pytest.mark.parametrize(
    "other",
    [
        np.arange(12.0).reshape(4, 3),
        np.arange(12.0, dtype=np.float32).reshape(3, 4),
        np.arange(1.0, 13.0).reshape(3, 4),
    ],
    ids=["shape", "dtype", "values"],
)
def test_fingerprint_sees_every_change(other: np.ndarray) -> None:
    assert fingerprint_of([other], {}) != fingerprint_of([np.arange(12.0).reshape(3, 4)], {})


def test_fingerprint_is_the_same_next_year() -> None:
    arrays = [np.arange(6).reshape(2, 3), np.array(["cat", "dog"]), np.array([True, False])]
    assert fingerprint_of(arrays, {"normalize": "none"}) == "91c255b202d2c715"
