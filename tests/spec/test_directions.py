from __future__ import annotations

import pytest

from hpo.spec.directions import better_direction


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("val_accuracy", "maximize"),
        ("accuracy", "maximize"),
        ("val_loss", "minimize"),
        ("val_auc", "maximize"),
        ("val_AUC", "maximize"),
        ("val_mean_absolute_error", "minimize"),
        ("val_rmse", "minimize"),
        ("val_f1_score", "maximize"),
        ("val_F1Score", "maximize"),
        ("val_r2_score", "maximize"),
        ("val_sparse_categorical_crossentropy", "minimize"),
        ("val_top_k_categorical_accuracy", "maximize"),
        ("val_precision", "maximize"),
        ("val_kl_divergence", "minimize"),
    ],
)
def test_the_direction_of_a_metric(metric: str, direction: str) -> None:
    assert better_direction(metric) == direction


@pytest.mark.parametrize("metric", ["val_score", "val_accuracy_loss"])
def test_a_name_that_does_not_tell(metric: str) -> None:
    assert better_direction(metric) is None
