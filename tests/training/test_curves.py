"""The picture of a trial: a figure used again shows what a new one would."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hpo.spec.models import Objective
from hpo.training.channel import Attachment
from hpo.training.curves import draw_curve
from hpo.training.progress import Progress

ACCURACY = Objective(metric="val_accuracy", direction="maximize")
LOSS = Objective(metric="val_loss", direction="minimize")


def progress(epochs: int, scale: float, *names: str) -> Progress:
    history = [
        {name: scale / (epoch + index) for index, name in enumerate(names)}
        for epoch in range(1, epochs + 1)
    ]
    return Progress(history=history, best_epoch=epochs // 2 + 1)


USUAL = ("loss", "accuracy", "val_loss", "val_accuracy")
TRIALS = [
    (progress(10, 2.0, *USUAL), ACCURACY, "trial 1"),
    (progress(3, 700.0, *USUAL), ACCURACY, "trial 2"),
    (progress(1, 1e-3, *USUAL), ACCURACY, "trial 3"),
    (progress(30, 0.1, *USUAL), ACCURACY, "trial 4"),
    (progress(30, 0.1, "loss", "val_loss"), LOSS, "trial 5"),
    (progress(12, 3.0, *USUAL), ACCURACY, "trial 6"),
]


def drawn_by_another_thread(trial: tuple[Progress, Objective, str]) -> tuple[Attachment, ...]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(draw_curve, *trial).result()


def test_a_figure_used_again_draws_what_a_new_one_does() -> None:
    for trial in TRIALS:
        # A thread begins with no figure.
        assert draw_curve(*trial) == drawn_by_another_thread(trial)


def test_a_metric_that_comes_later_is_left_out_and_one_that_goes_is_a_gap() -> None:
    trial = progress(4, 1.0, *USUAL)
    del trial.history[2]["accuracy"]
    trial.history[3]["more"] = 1.0
    picture, table = draw_curve(trial, ACCURACY, "trial 7")
    assert picture.content.startswith(b"\x89PNG")
    assert table.content.decode().splitlines()[0] == "epoch,loss,accuracy,val_loss,val_accuracy"


@pytest.mark.parametrize("objective", [ACCURACY, LOSS])
def test_no_epoch_no_picture(objective: Objective) -> None:
    assert draw_curve(Progress(), objective, "trial 8") == ()
