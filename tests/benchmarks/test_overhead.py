"""What the overhead benchmark compares does the same work."""

from __future__ import annotations

import pytest

from benchmarks.overhead import GraphOfAnEpoch, StepsByHand
from benchmarks.peers.__main__ import ROOT
from benchmarks.peers.with_hpo import study_file
from hpo.spec import load_study_file


def test_steps_by_hand_train_what_a_trainer_trains() -> None:
    from hpo.training.seeding import epoch_order
    from hpo.training.trial import prepare

    bench = prepare(load_study_file(study_file("cnn")).spec, ROOT)
    by_hand, by_graph = StepsByHand(bench), GraphOfAnEpoch(bench)
    assert by_hand.rows == by_graph.rows
    order = epoch_order(0, 1, by_hand.rows)
    by_steps, in_graph = (way.train(order) | way.validate() for way in (by_hand, by_graph))
    assert set(by_steps) == set(in_graph) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name in ("loss", "val_loss"):
        assert by_steps[name] == pytest.approx(in_graph[name], rel=1e-4)
    # A row or two may fall on the other side of a rounding.
    for name in ("accuracy", "val_accuracy"):
        assert by_steps[name] == pytest.approx(in_graph[name], abs=0.006)
