"""What the overhead benchmark compares does the same work."""

from __future__ import annotations

import pytest

from benchmarks.overhead import EpochsAlone, GraphOfAnEpoch, StepsByHand
from benchmarks.peers.__main__ import ROOT
from benchmarks.peers.job import Job
from benchmarks.peers.with_hpo import study_file
from hpo.spec import load_study_file


def test_steps_by_hand_train_what_a_trainer_trains() -> None:
    from hpo.training.bench import prepare
    from hpo.training.seeding import epoch_order

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


def test_a_process_of_bare_epochs_that_ends_repeats_its_last_words() -> None:
    job = Job(
        task="cnn", trials=1, epochs=1, seed=0, workers=1, pruning=False, steps_per_execution=1
    )
    with EpochsAlone(job) as alone:
        alone.tell("nothing", 1)
        with pytest.raises(RuntimeError, match=r"(?s)exit code 1:.*KeyError: 'nothing'"):
            alone.answer()
        # As often as it is asked.
        alone.tell("fit", 1)
        with pytest.raises(RuntimeError, match="exit code 1"):
            alone.answer()
