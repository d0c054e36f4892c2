"""Augmentation: what it changes, what it leaves alone, and that its randomness is an epoch's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hpo.spec.models import Augment
from tests.conftest import ROOT
from tests.training.test_trial import check_same_state, run_with_kills
from tests.training.trials import MemoryChannel, make_spec

if TYPE_CHECKING:
    from hpo.training.bench import Bench

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("deterministic")]

RNG = np.random.default_rng(5)
PICTURES = RNG.normal(size=(12, 9, 7, 3)).astype(np.float32)
ROWS = RNG.normal(size=(400, 6)).astype(np.float32)
EACH: dict[str, Any] = {
    "flip": "both",
    "rotation": 0.25,
    "zoom": 0.5,
    "translation": 0.3,
    "contrast": 0.5,
    "noise": 0.5,
    "feature_dropout": 0.5,
}
OF_PICTURES = ("flip", "rotation", "zoom", "translation", "contrast")


def changed(augment: Augment, x: Any, seed: int = 1) -> Any:
    import tensorflow as tf

    from hpo.training.augment import make_augmentation

    made = make_augmentation(augment, x)
    assert made is not None
    for index, generator in enumerate(made.generators):
        generator.state.assign(np.asarray([seed, index], generator.state.dtype))
    return tf.nest.map_structure(np.asarray, made(tf.nest.map_structure(tf.constant, x)))


def only(key: str) -> Augment:
    return Augment(**{key: EACH[key]})


@pytest.mark.parametrize("key", EACH)
def test_each_changes_every_picture_in_its_own_way(key: str) -> None:
    one = changed(only(key), PICTURES)
    assert (one.shape, one.dtype) == (PICTURES.shape, np.float32)
    assert not np.allclose(one, PICTURES)
    np.testing.assert_array_equal(one, changed(only(key), PICTURES))
    assert not np.array_equal(one, changed(only(key), PICTURES, seed=2))
    same = np.repeat(PICTURES[:1], 12, axis=0)
    assert len(np.unique(changed(only(key), same).reshape(12, -1), axis=0)) > 1


@pytest.mark.parametrize("key", OF_PICTURES)
def test_a_normalized_picture_changes_like_a_raw_one(key: str) -> None:
    scale, offset = np.float32([0.1, 2, 30]), np.float32([0, -5, 200])
    raw = changed(only(key), PICTURES)
    np.testing.assert_allclose(
        changed(only(key), PICTURES * scale + offset), raw * scale + offset, rtol=1e-3, atol=1e-3
    )


def test_noise_and_dropout_of_features() -> None:
    assert (changed(only("noise"), ROWS) - ROWS).std() == pytest.approx(0.5, rel=0.1)
    dropped = changed(only("feature_dropout"), ROWS)
    assert (dropped == 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(dropped[dropped != 0], 2 * ROWS[dropped != 0], rtol=1e-5)


def test_inputs_by_name_change_where_it_fits() -> None:
    x = {"picture": PICTURES, "numbers": ROWS[:12], "code": np.arange(12)}
    flipped = changed(only("flip"), x)
    assert not np.array_equal(flipped["picture"], x["picture"])
    np.testing.assert_array_equal(flipped["numbers"], x["numbers"])
    noisy = changed(only("noise"), x)
    assert not np.array_equal(noisy["numbers"], x["numbers"])
    assert not np.array_equal(noisy["picture"], x["picture"])
    np.testing.assert_array_equal(noisy["code"], x["code"])


def test_nothing_costs_nothing() -> None:
    from hpo.training.augment import make_augmentation

    assert make_augmentation(Augment(), PICTURES) is None
    assert make_augmentation(only("flip"), {"a": ROWS, "code": np.arange(400)}) is None


def test_only_training_is_augmented() -> None:
    import keras

    from hpo.training.augment import make_augmentation
    from hpo.training.epochs import EpochRunner

    x = RNG.normal(size=(100, 9, 7, 3)).astype(np.float32)
    y = RNG.integers(0, 2, (100, 1)).astype(np.float32)

    def run(augment: Augment) -> tuple[dict[str, float], dict[str, float]]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(1, "sigmoid"))
        # A rate of 0: only what goes in makes a difference.
        model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", metrics=["accuracy"])
        runner = EpochRunner(model, (x, y), (x, y), 32, make_augmentation(augment, x))
        runner.seed(3, 1)
        order = np.arange(100, dtype=np.int32)
        return runner.train(order), runner.evaluate()

    plain, plain_held = run(Augment())
    other, other_held = run(Augment(**EACH))
    assert other["loss"] != pytest.approx(plain["loss"], abs=1e-4)
    assert other_held == plain_held


def test_a_step_that_xla_compiles_takes_augmented_rows() -> None:
    import keras

    from hpo.training.augment import make_augmentation
    from hpo.training.epochs import EpochRunner

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, "sigmoid"))
    model.compile("sgd", "binary_crossentropy")
    # Keras itself turns it on where there is a GPU.
    model._jit_compile = True
    y = RNG.integers(0, 2, (12, 1)).astype(np.float32)
    augment = make_augmentation(Augment(**EACH), PICTURES)
    runner = EpochRunner(model, (PICTURES, y), (PICTURES, y), 5, augment)
    assert runner.train(np.arange(12, dtype=np.int32))["loss"] > 0


@pytest.fixture(scope="module")
def pictures() -> Bench:
    from hpo.training.bench import prepare

    data = {
        "source": {"type": "sklearn", "name": "digits"},
        "preprocess": {"normalize": "standard", "reshape": [8, 8, 1]},
    }
    augment = {"rotation": 0.05, "zoom": 0.1, "noise": 0.1}
    space: dict[str, Any] = {"depth": 1, "filters_0": 8, "units": 16, "dropout": 0.2}
    space["augment_translation"] = {"type": "float", "low": 0.1, "high": 0.2}
    space["augment_zoom"] = 0.2
    spec = make_spec(
        data=data,
        model={"builder": "models.cnn:build"},
        training={"epochs": 4, "batch_size": 256, "augment": augment, "deterministic": True},
        space=space,
    )
    return prepare(spec, ROOT)


def test_killed_and_resumed_is_never_killed(pictures: Bench, tmp_path: Path) -> None:
    whole, state = run_with_kills(pictures, tmp_path / "whole", [])
    broken, resumed = run_with_kills(pictures, tmp_path / "broken", [1, 3])
    assert broken.progress.history == whole.progress.history
    check_same_state(resumed.last, state.last)


def test_the_space_goes_before_training(pictures: Bench) -> None:
    from hpo.training.bench import build_model

    channel = MemoryChannel()
    built = build_model(pictures, channel.suggest, 1)
    expected = Augment(rotation=0.05, zoom=0.2, noise=0.1, translation=0.1)
    assert built.settings.augment == expected
    # Behind what the trainer asked for before there was augmentation.
    assert list(channel.suggested)[-1] == "augment_translation"
    assert "augment_contrast" not in built.values.taken


def test_what_the_builder_declares_is_its_own() -> None:
    from hpo.space import Values
    from hpo.spec.models import FloatParameter, Training
    from hpo.training.compiling import settle, training_defaults

    values = Values({"augment_zoom": 0.2, "augment_noise": 0.3}, training_defaults(Training()), min)
    values.take("augment_zoom", FloatParameter(type="float", low=0, high=1), 0)
    assert settle(values, Training()).augment == Augment(noise=0.3)


@pytest.mark.parametrize(
    ("training", "space", "path"),
    [
        ({"augment": {"rotation": 0.1}}, {}, ("training", "augment", "rotation")),
        ({}, {"augment_flip": "both"}, ("space", "augment_flip")),
        ({}, {"augment_zoom": {"type": "float", "low": 0, "high": 0.5}}, ("space", "augment_zoom")),
        ({"augment": {"flip": "both"}}, {"augment_flip": "none"}, None),
        ({"augment": {"noise": 0.1}}, {"augment_feature_dropout": 0.1}, None),
    ],
)
def test_augmentation_that_does_not_fit_the_data(
    project: Path, training: dict[str, Any], space: dict[str, Any], path: tuple[str, ...] | None
) -> None:
    from hpo.training.preflight import check_study

    found = check_study(make_spec(training=training, space={"units": 8, **space}), project)
    assert [problem.path for problem in found.problems] == ([path] if path else [])
    if path:
        words = found.problems[0].message
        assert words == "it is for pictures; samples of this data have the shape x (64,)"


def test_codes_alone_take_no_noise() -> None:
    from hpo.training.augment import check_augment
    from hpo.training.compiling import SettingError

    spec = make_spec(training={"augment": {"noise": 0.1}})
    with pytest.raises(SettingError, match=r"training\.augment\.noise: it is for numbers that are"):
        check_augment(spec, {"job": np.arange(4), "town": np.arange(4)}, (), own_fit=False)
