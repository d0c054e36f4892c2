from __future__ import annotations

import dataclasses
import gc
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpo.errors import BuilderError
from hpo.training.channel import TrialTask
from hpo.training.checkpoints import Checkpoint, CheckpointFolder, load_checkpoint
from tests.training.trials import KilledError, MemoryChannel, lowest, make_spec, with_builder

if TYPE_CHECKING:
    from hpo.training.bench import Bench
    from hpo.training.trial import TrialEnd

pytestmark = pytest.mark.keras

MakeBench = Callable[..., "Bench"]


@dataclasses.dataclass
class LastState(MemoryChannel):
    """Keeps the checkpoint of the last epoch, which is gone when a trial has ended."""

    folder: Path = Path()
    last: Checkpoint | None = None

    def report(self, epoch: int, value: float) -> bool:
        newest = max(self.folder.glob("epoch-*.zip"), key=lambda path: path.name)
        self.last = load_checkpoint(newest)
        return super().report(epoch, value)


def task(
    folder: Path, token: int = 1, reported: int = 0, seed: int = 11, *, pruned: bool = False
) -> TrialTask:
    return TrialTask(3, seed, token, folder, reported, pruned)


def run(bench: Bench, folder: Path, channel: MemoryChannel, **options: int) -> TrialEnd:
    from hpo.training.trial import run_trial

    return run_trial(bench, task(folder, **options), channel)


def run_with_kills(bench: Bench, folder: Path, kills: list[int]) -> tuple[TrialEnd, LastState]:
    """A trial whose trainer dies after each of these epochs."""
    reported: dict[int, float] = {}
    for token, epoch in enumerate(kills, start=1):
        channel = LastState(die_after=epoch, folder=folder)
        with pytest.raises(KilledError):
            run(bench, folder, channel, token=token, reported=max(reported, default=0))
        assert not set(reported) & set(channel.reports)
        reported |= channel.reports
    channel = LastState(folder=folder)
    end = run(bench, folder, channel, token=len(kills) + 1, reported=max(reported, default=0))
    assert channel.begun[0].epoch == max(kills, default=0)
    channel.reports = reported | channel.reports
    return end, channel


def check_same_state(one: Checkpoint | None, other: Checkpoint | None) -> None:
    assert one is not None
    assert other is not None
    for mine, theirs in ((one.weights, other.weights), (one.optimizer, other.optimizer)):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    # Only the time may differ.
    assert one.progress | {"seconds": 0} == other.progress | {"seconds": 0}


SCHEDULES: dict[str, dict[str, Any]] = {
    "plateau": {
        "schedule": {"type": "plateau", "patience": 1, "min_delta": 0.05},
        "early_stopping": {"patience": 3, "min_delta": 0.02},
    },
    "cosine": {"schedule": {"type": "cosine", "warmup": 2, "floor": 0.1}},
}


@pytest.mark.parametrize(("name", "kills"), [("plateau", [3]), ("cosine", [2, 4])])
def test_row_05_killed_and_resumed_is_never_killed(
    make_bench: MakeBench, tmp_path: Path, name: str, kills: list[int]
) -> None:
    training = {"epochs": 7, "batch_size": 128, "learning_rate": 0.02, "deterministic": True}
    space = {"units": 16, "dropout": 0.3, "batchnorm": True}
    bench = make_bench(training=training | SCHEDULES[name], space=space)
    whole, state = run_with_kills(bench, tmp_path / "whole", [])
    broken, resumed = run_with_kills(bench, tmp_path / "broken", kills)
    assert whole.progress.epoch > max(kills)
    assert broken.progress.history == whole.progress.history
    assert resumed.reports == state.reports
    check_same_state(resumed.last, state.last)
    assert whole.checkpoint is not None
    assert broken.checkpoint is not None
    check_same_state(load_checkpoint(broken.checkpoint), load_checkpoint(whole.checkpoint))
    if name == "plateau":
        assert whole.progress.scale < 1


def test_the_best_and_the_last_checkpoint_remain_until_the_end_is_known(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    # An absurd rate, so that the last epoch is not the best.
    training = {"epochs": 4, "batch_size": 128, "learning_rate": 0.5, "optimizer": "adam"}
    bench = make_bench(training=training, objective={"metric": "val_loss", "direction": "minimize"})
    end = run(bench, tmp_path, channel := MemoryChannel())
    assert not end.pruned
    best = min(channel.reports, key=lambda epoch: channel.reports[epoch])
    assert (end.progress.best_epoch, end.progress.best_value) == (best, channel.reports[best])
    assert end.checkpoint == CheckpointFolder(tmp_path, 1).path(best)
    last = CheckpointFolder(tmp_path, 1).path(4)
    assert set(tmp_path.iterdir()) == {end.checkpoint, last}
    assert [logs["val_loss"] for logs in end.progress.history] == [*channel.reports.values()]


class _Deleting(MemoryChannel):
    """Somebody deletes the checkpoints after each epoch, the last one included."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def report(self, epoch: int, value: float) -> bool:
        shutil.rmtree(self._folder)
        return super().report(epoch, value)


def test_row_20_checkpoints_that_have_vanished_do_not_end_a_trial(
    digits: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "trial"
    end = run(digits, folder, channel := _Deleting(folder))
    assert list(channel.reports) == [1, 2, 3]
    assert end.checkpoint is not None
    assert load_checkpoint(end.checkpoint) is None


def test_reports_that_the_study_missed_are_repeated(digits: Bench, tmp_path: Path) -> None:
    lost = MemoryChannel(die_before=2)
    with pytest.raises(KilledError):
        run(digits, tmp_path, lost)
    channel = MemoryChannel()
    end = run(digits, tmp_path, channel, token=2, reported=1)
    assert channel.begun[0].epoch == 2
    assert list(channel.reports) == [2, 3]
    assert channel.reports[2] == end.progress.history[1]["val_accuracy"]


def test_pruning_ends_a_trial_at_once(digits: Bench, tmp_path: Path) -> None:
    end = run(digits, tmp_path, channel := MemoryChannel(prune_at=2))
    assert end.pruned
    assert list(channel.reports) == [1, 2]
    assert end.progress.epoch == 2
    # Told once, it ends for every lease.
    again = run(digits, tmp_path, channel := MemoryChannel(), token=2, reported=2, pruned=True)
    assert (again.pruned, again.progress.history) == (True, end.progress.history)
    assert channel.reports == {}


def test_a_repeated_report_may_prune(digits: Bench, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(digits, tmp_path, MemoryChannel(die_before=2))
    end = run(digits, tmp_path, MemoryChannel(prune_at=2), token=2, reported=1)
    assert (end.pruned, end.progress.epoch) == (True, 2)


def test_a_trial_that_had_ended_ends_again(make_bench: MakeBench, tmp_path: Path) -> None:
    training = {"epochs": 9, "early_stopping": {"patience": 1, "min_delta": 0.9}}
    bench = make_bench(training=training)
    with pytest.raises(KilledError):
        run(bench, tmp_path, MemoryChannel(die_after=2))
    end = run(bench, tmp_path, channel := MemoryChannel(), token=2, reported=2)
    assert channel.reports == {}
    assert end.progress.epoch == 2
    assert end.checkpoint is not None
    assert load_checkpoint(end.checkpoint) is not None
    assert end.checkpoint.name.endswith(".2.zip")


def test_a_damaged_newest_checkpoint_is_made_again(digits: Bench, tmp_path: Path) -> None:
    whole = run(digits, tmp_path / "whole", MemoryChannel())
    folder = tmp_path / "broken"
    with pytest.raises(KilledError):
        run(digits, folder, MemoryChannel(die_after=2))
    newest = CheckpointFolder(folder, 1).path(2)
    newest.write_bytes(newest.read_bytes()[:5000])
    # Epoch 1 went when epoch 2 was the better one, so the trial begins again.
    end = run(digits, folder, channel := MemoryChannel(), token=2, reported=2)
    assert channel.begun[0].epoch == 0
    # What is reported is what is saved, though here it is the same.
    assert list(channel.reports) == [1, 2, 3]
    assert end.progress.history == whole.progress.history


def test_a_changed_builder_does_not_go_on(make_bench: MakeBench, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(make_bench(), tmp_path, MemoryChannel(die_after=1))
    changed = make_bench(space={"units": 20})
    with pytest.raises(BuilderError, match=r"trial 3 can't go on from epoch 1: .* another model"):
        run(changed, tmp_path, MemoryChannel(), token=2, reported=1)


def test_divergence_tells_the_epoch(make_bench: MakeBench, tmp_path: Path) -> None:
    bench = make_bench(space={"optimizer": "sgd", "learning_rate": 1e30})
    end = run(bench, tmp_path, MemoryChannel())
    assert end.diverged is not None
    assert re.fullmatch(r"loss became (nan|inf) in epoch 1", end.diverged)
    assert end.checkpoint is None
    assert list(tmp_path.iterdir()) == []


def test_what_diverged_keeps_its_best_epoch(digits: Bench, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(digits, tmp_path, MemoryChannel(die_after=2))
    folder = CheckpointFolder(tmp_path, 1)
    last = load_checkpoint(folder.path(2))
    assert last is not None
    wrong = [np.full_like(weight, np.nan) for weight in last.weights]
    folder.save(2, wrong, last.optimizer, last.progress)
    end = run(digits, tmp_path, channel := MemoryChannel(), token=2, reported=2)
    assert end.diverged == "loss became nan in epoch 3"
    assert channel.reports == {}
    assert (end.progress.epoch, end.pruned) == (2, False)
    assert end.checkpoint == CheckpointFolder(tmp_path, 2).path(2)


def test_row_04_takeovers_without_an_epoch_between_lose_nothing(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    training = {"epochs": 5, "batch_size": 128, "learning_rate": 0.5, "optimizer": "adam"}
    bench = make_bench(training=training, objective={"metric": "val_loss", "direction": "minimize"})
    with pytest.raises(KilledError):
        run(bench, tmp_path, MemoryChannel(die_after=4))
    for token in (2, 3):
        # Killed before it has trained an epoch.
        folder = CheckpointFolder(tmp_path, token)
        taken = folder.latest()
        assert taken is not None
        assert taken.progress["best_epoch"] < taken.epoch == 4
    run(bench, tmp_path, channel := MemoryChannel(), token=4, reported=4)
    assert channel.begun[0].epoch == 4
    assert list(channel.reports) == [5]


def test_seeds_decide(make_bench: MakeBench, tmp_path: Path) -> None:
    space = {"units": 16, "dropout": 0.3}
    bench = make_bench(training={"epochs": 1, "batch_size": 256}, space=space)
    one, other = (
        run(bench, tmp_path / str(seed), MemoryChannel(), seed=seed).progress.history
        for seed in (1, 2)
    )
    assert one != other


def test_a_compiled_model_keeps_its_own_schedule(make_bench: MakeBench, tmp_path: Path) -> None:
    from hpo.training.bench import build_model
    from hpo.training.builder import load_builder

    sections: dict[str, Any] = {
        "model": {"builder": "tiny:compiled"},
        "space": {"learning_rate": {"type": "float", "low": 0.1, "high": 0.2}},
        "training": {"epochs": 2, "schedule": {"type": "step", "every": 1}},
    }
    bench = make_bench(**sections)
    builder = load_builder(bench.spec.model, bench.data.signature, tmp_path)
    bench = dataclasses.replace(bench, builder=builder)
    built = build_model(bench, lambda _, parameter: lowest(parameter), 1)
    assert built.unused == {"learning_rate"}
    assert type(built.model.optimizer).__name__ == "SGD"
    assert built.model.loss.from_logits
    assert float(built.model.optimizer.learning_rate) == pytest.approx(0.1)
    assert run(bench, tmp_path / "trial", MemoryChannel()).progress.epoch == 2


@pytest.mark.parametrize(
    ("source", "metric", "direction"),
    [("diabetes", "val_mae", "minimize"), ("breast_cancer", "val_accuracy", "maximize")],
)
def test_regression_and_binary(
    project: Path, tmp_path: Path, source: str, metric: str, direction: str
) -> None:
    from hpo.training.bench import prepare

    data = {"source": {"type": "sklearn", "name": source}, "preprocess": {"normalize": "standard"}}
    binary = source == "breast_cancer"
    spec = make_spec(
        data=data,
        objective={"metric": metric, "direction": direction},
        training={"epochs": 3, "class_weight": "balanced" if binary else None},
    )
    end = run(prepare(spec, project), tmp_path, MemoryChannel())
    first, last = end.progress.history[0], end.progress.history[-1]
    assert last["loss"] < first["loss"]
    assert set(last) >= {"loss", "val_loss", metric}
    assert end.progress.best_value == (max if binary else min)(
        logs[metric] for logs in end.progress.history
    )


def test_a_trial_leaves_no_graph_behind(make_bench: MakeBench, tmp_path: Path) -> None:
    space = {"units": 16, "dropout": 0.3, "batchnorm": True}
    before = count_graphs()
    bench = make_bench(training={"epochs": 1, "batch_size": 256}, space=space)
    run(bench, tmp_path / "first", MemoryChannel())
    shared = count_graphs()
    run(bench, tmp_path / "second", MemoryChannel(), seed=12)
    assert count_graphs() == shared
    del bench
    assert count_graphs() <= before


def count_graphs() -> int:
    gc.collect()
    return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())


def test_a_function_that_outlives_its_trial_keeps_its_gradient(
    make_bench: MakeBench, project: Path, tmp_path: Path
) -> None:
    from hpo.training.builder import load_builder

    spec = make_spec(model={"builder": "tiny:traced"}, space={}, training={"epochs": 1})
    builder = load_builder(spec.model, make_bench().data.signature, project)
    bench = dataclasses.replace(make_bench(), spec=spec, builder=builder)
    one, other = (run(bench, tmp_path / str(i), MemoryChannel()).progress.history for i in (1, 2))
    assert one == other


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_model_of_bfloat16_resumes(
    make_bench: MakeBench, project: Path, tmp_path: Path, optimizer: str
) -> None:
    training = {"epochs": 3, "batch_size": 512, "optimizer": optimizer, "momentum": 0.5}
    bench = with_builder(make_bench(training=training), "tiny:half", project)
    whole, state = run_with_kills(bench, tmp_path / "whole", [])
    broken, resumed = run_with_kills(bench, tmp_path / "broken", [1])
    assert broken.progress.history == whole.progress.history
    check_same_state(resumed.last, state.last)


def test_a_model_with_optimizers_of_its_own_resumes(
    make_bench: MakeBench, project: Path, tmp_path: Path
) -> None:
    bench = make_bench(training={"epochs": 3, "batch_size": 128}, space={})
    bench = with_builder(bench, "tiny:two_optimizers", project)
    whole, state = run_with_kills(bench, tmp_path / "whole", [])
    broken, resumed = run_with_kills(bench, tmp_path / "broken", [1, 2])
    assert whole.progress.history[2]["val_loss"] < whole.progress.history[0]["val_loss"]
    assert broken.progress.history == whole.progress.history
    check_same_state(resumed.last, state.last)


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("module", ["tiny", "mixed"])
def test_averages_of_the_weights_are_judged_and_kept(
    make_bench: MakeBench, project: Path, tmp_path: Path, module: str
) -> None:
    from hpo.training.bench import build_model
    from hpo.training.epochs import evaluate

    bench = make_bench(training={"epochs": 3, "batch_size": 128}, space={})
    bench = with_builder(bench, f"{module}:averaging", project)
    whole, state = run_with_kills(bench, tmp_path / "whole", [])
    broken, resumed = run_with_kills(bench, tmp_path / "broken", [1, 2])
    assert broken.progress.history == whole.progress.history
    check_same_state(resumed.last, state.last)
    assert state.last is not None
    weights, kept = state.last.weights, state.last.optimizer
    for weight, trained in zip(weights, kept[-4:], strict=True):
        assert any(np.array_equal(weight, each) for each in kept[:-4])
        assert np.abs(weight - trained).max() > 1e-4
    model = build_model(bench, MemoryChannel().suggest, 1).model
    model.set_weights(weights)
    held = bench.data.validation
    found = evaluate(model, (held.x, held.y), 128)
    assert found["loss"] == pytest.approx(whole.progress.history[2]["val_loss"], rel=1e-3)


@pytest.mark.usefixtures("mixed")
def test_mixed_precision_with_a_schedule_resumes(
    make_bench: MakeBench, project: Path, tmp_path: Path
) -> None:
    import keras

    from hpo.training.bench import build_model

    schedule = {"type": "exponential", "decay": 0.5}
    training = {"epochs": 3, "batch_size": 128, "schedule": schedule}
    bench = with_builder(make_bench(training=training), "mixed:build", project)
    model = build_model(bench, MemoryChannel().suggest, 1).model
    assert {layer.compute_dtype for layer in model.layers} == {"float16"}
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    whole, state = run_with_kills(bench, tmp_path / "whole", [])
    broken, resumed = run_with_kills(bench, tmp_path / "broken", [1])
    # Not all steps were left out for their gradients' overflow.
    assert whole.progress.history[2]["loss"] < 0.95 * whole.progress.history[0]["loss"]
    assert broken.progress.history == whole.progress.history
    check_same_state(resumed.last, state.last)
