from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from hpo.errors import BuilderError
from hpo.spec.models import IntParameter
from hpo.training.findings import Preflight
from tests.training.trials import make_spec

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("deterministic")]

Check = Callable[..., Preflight]

PLAIN = """
    def build(hp, input_shape, num_outputs):
        layers = [keras.Input(input_shape)]
        for i in range(hp.Int("depth", 1, 3)):
            layers.append(keras.layers.Dense(hp.Int(f"units_{i}", 4, 32), "relu"))
        return keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])
    """


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Writes a builder and checks a study of it; keywords replace sections of the study."""
    folder = tmp_path_factory.mktemp("checked")
    count = iter(range(1000))

    def check_source(source: str, **sections: Any) -> Preflight:
        from hpo.training.preflight import check_study

        name = f"checked_{next(count)}"
        text = "import keras\nimport tensorflow as tf\n" + textwrap.dedent(source)
        (folder / f"{name}.py").write_text(text)
        sections = {"space": {}, "model": {"builder": f"{name}:build"}} | sections
        return check_study(make_spec(**sections), folder)

    return check_source


def problems(found: Preflight) -> dict[tuple[str | int, ...], str]:
    return {problem.path: problem.message for problem in found.problems}


def integer(low: int, high: int, **more: Any) -> dict[str, Any]:
    return {"type": "int", "low": low, "high": high} | more


def test_a_good_study(check: Check) -> None:
    found = check(PLAIN)
    assert found.problems == ()
    assert found.metrics == ("loss", "accuracy", "val_loss", "val_accuracy")
    assert found.parameters["depth"] == IntParameter(type="int", low=1, high=3)
    assert found.signature.input_shape == (64,)
    assert len(found.builder_hash) == 16
    assert (found.optuna_major, found.keras_major) == ("5", "3")


def test_misspelled_names(check: Check) -> None:
    space = {"dept": 2, "learning_rat": 0.1, "unit": integer(4, 8, repeat="depth")}
    found = problems(check(PLAIN, space=space))
    assert "never asks for 'dept'; did you mean 'depth'?" in found["space", "dept"]
    assert "did you mean 'learning_rate'?" in found["space", "learning_rat"]
    assert "never asks for 'unit'; did you mean 'units_" in found["space", "unit"]


def test_a_range_outside_of_the_builders(check: Check) -> None:
    found = problems(check(PLAIN, space={"depth": integer(1, 9)}))
    words = "expected a whole number from 1 to 3 as the builder, received 9"
    assert words in found["space", "depth"]


def test_names_made_in_loops(check: Check) -> None:
    found = check(PLAIN, space={"units_2": integer(8, 16), "units_1": 8})
    assert found.problems == ()
    assert {"units_0", "units_1", "units_2"} <= set(found.parameters)


def test_repeat_and_when(check: Check) -> None:
    units = integer(8, 16, repeat="depth")
    momentum = {"type": "float", "low": 0.1, "high": 0.9, "when": {"optimizer": "sgd"}}
    optimizer = {"type": "categorical", "choices": ["adam", "sgd"]}
    space = {"units": units, "momentum": momentum, "optimizer": optimizer}
    assert check(PLAIN, space=space).problems == ()


def test_names_in_a_branch_of_the_builder(check: Check) -> None:
    source = """
        def build(hp, input_shape, num_outputs):
            layers = [keras.Input(input_shape)]
            if hp.Choice("kind", ["linear", "deep", "wide"]) == "deep":
                layers.append(keras.layers.Dense(hp.Int("width", 4, 8)))
            return keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])
        """
    assert check(source, space={"width": integer(5, 6)}).problems == ()


def test_an_entry_for_what_the_builder_fixes(check: Check) -> None:
    source = """
        def build(hp, input_shape, num_outputs):
            layers = [keras.Input(input_shape), keras.layers.Dropout(hp.Fixed("rate", 0.25))]
            model = keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])
            optimizer = keras.optimizers.SGD(hp.Fixed("learning_rate", 0.5))
            model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model
        """
    share = {"type": "float", "low": 0.1, "high": 0.5}
    found = problems(check(source, space={"rate": share, "learning_rate": share}))
    assert list(found) == [("space", "learning_rate"), ("space", "rate")]
    for (_, name), value in zip(found, ("0.5", "0.25"), strict=True):
        words = f"fixes {name!r} to {value} (hp.Fixed), so the entry would change nothing; remove"
        assert words in found["space", name]


def test_what_the_builder_fixes_in_one_branch_alone(check: Check) -> None:
    source = """
        def build(hp, input_shape, num_outputs):
            rate = hp.Float("rate", 0.1, 0.5) if hp.Boolean("drop") else hp.Fixed("rate", 0.0)
            layers = [keras.Input(input_shape), keras.layers.Dropout(rate)]
            return keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])
        """
    assert check(source, space={"rate": 0.25}).problems == ()


KINDS = """
import keras

def build(hp, input_shape, num_outputs):
    kind = hp.Choice("kind", ["mlp", "linear"])
    deep, layers = hp.Boolean("deep"), [keras.Input(input_shape)]
    for _ in range(hp.Int("depth", 1, 2)):
        layers.append(keras.layers.Dense(hp.Int("units", 4, 8), "relu"))
    return keras.Sequential([*layers, keras.layers.Dense(num_outputs, "softmax")])
"""


@pytest.mark.parametrize("more", [{}, {"kind": "mlp"}])
def test_conditions_that_no_trial_fulfils(check: Check, more: dict[str, Any]) -> None:
    """Of what the builder declares, be it sampled or fixed."""
    when = {"kind": ["mlp", "liner"], "deep": 3, "depth": 5}
    found = problems(check(KINDS, space={"units": integer(4, 8, when=when), **more}))
    assert found == {
        ("space", "units", "when", "kind"): "kind never has this value: expected one of 'mlp', "
        "'linear' as the builder declares it, received 'liner'",
        ("space", "units", "when", "deep"): "deep never has this value: expected true or false as "
        "the builder declares it, received 3",
        ("space", "units", "when", "depth"): "depth never has this value: expected a whole number "
        "from 1 to 2 as the builder declares it, received 5",
    }
    when = {"kind": "linear", "deep": True, "depth": [1, 2]}
    assert problems(check(KINDS, space={"units": integer(4, 8, when=when), **more})) == {}


def test_a_metric_that_is_never_reported(check: Check) -> None:
    objective = {"metric": "val_acuracy", "direction": "maximize"}
    words = problems(check(PLAIN, objective=objective))["objective", "metric"]
    assert words.startswith("'val_acuracy' is never reported; did you mean 'val_accuracy'?")
    assert words.endswith("reported are: loss, accuracy, val_loss, val_accuracy")


@pytest.mark.parametrize(
    ("metric", "direction", "meant"),
    [
        ("val_loss", "maximize", ["is `direction: minimize` meant?"]),
        ("val_accuracy", "minimize", ["is `direction: maximize` meant?"]),
        ("accuracy", "maximize", ["is val_accuracy meant?"]),
        ("val_loss", "minimize", []),
    ],
)
def test_an_objective_that_is_a_mistake_most_often(
    check: Check, metric: str, direction: str, meant: list[str]
) -> None:
    found = check(PLAIN, objective={"metric": metric, "direction": direction})
    assert found.problems == ()
    assert [words[-len(end) :] for words, end in zip(found.warnings, meant, strict=True)] == meant


def test_training_that_keras_does_not_know(check: Check) -> None:
    found = problems(check(PLAIN, training={"loss": "sparse_categorical_crosentropy"}))
    assert found["training", "loss"].startswith("Keras knows no 'sparse_categorical_crosentropy'")
    found = problems(check(PLAIN, training={"class_weight": {"ten": 2.0}}))
    assert found["training", "class_weight"].startswith("the data has no class ten; its classes")
    found = problems(check(PLAIN, training={"class_weight": dict.fromkeys("0123456789", 0.0)}))
    assert found["training", "class_weight"] == "no class counts; expected a weight above 0"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("keras.layers.Dense(num_outputs)", r"must put out probabilities .* activation='softmax'"),
        ("keras.layers.Dense(3, 'softmax')", r"puts out \(None, 3\), expected \(None, 10\)"),
        ("keras.layers.Reshape((8, 8))", r"puts out \(None, 8, 8\), expected \(None, 10\)"),
    ],
)
def test_outputs_that_do_not_fit(check: Check, layer: str, message: str) -> None:
    source = f"""
        def build(hp, input_shape, num_outputs):
            return keras.Sequential([keras.Input(input_shape), {layer}])
        """
    with pytest.raises(BuilderError, match=message):
        check(source)


def test_an_input_that_does_not_fit(check: Check) -> None:
    source = """
        def build(hp, num_outputs):
            return keras.Sequential([keras.Input((7,)), keras.layers.Dense(num_outputs)])
        """
    with pytest.raises(
        BuilderError, match=r"can't be trained on this data: ValueError: .*\n\nInput 0 "
    ):
        check(source)


COMPILED = """
    def build(hp, input_shape, num_outputs):
        model = keras.Sequential([keras.Input(input_shape), keras.layers.Dense(num_outputs)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD({rate}), loss, metrics=["accuracy"])
        return model
    """


def test_a_compiled_model_may_put_out_logits(check: Check) -> None:
    assert check(COMPILED.format(rate=0.1)).problems == ()


def test_space_that_a_compiled_model_does_not_ask_for(check: Check) -> None:
    space = {"learning_rate": 0.5, "momentum": 0.5, "batch_size": 64}
    found = problems(check(COMPILED.format(rate='hp.get("learning_rate")'), space=space))
    assert list(found) == [("space", "momentum")]
    assert "compiles its model and does not ask for 'momentum'" in found["space", "momentum"]


def test_a_builder_that_raises(check: Check) -> None:
    source = """
        def build(hp, input_shape):
            return helper(input_shape)


        def helper(shape):
            return keras.layers.Dense(-1)(keras.Input(shape))
        """
    with pytest.raises(BuilderError, match=r"raised ValueError: .*checked_\d+.py, line 9\)$"):
        check(source)


def test_a_train_step_that_works_only_outside_of_a_graph(check: Check) -> None:
    source = """
        class Model(keras.Model):
            def train_step(self, data):
                logs = super().train_step(data)
                return {name: value.numpy() for name, value in logs.items()}


        def build(hp, input_shape, num_outputs):
            inputs = keras.Input(input_shape)
            return Model(inputs, keras.layers.Dense(num_outputs, "softmax")(inputs))
        """
    with pytest.raises(BuilderError, match=r"can't be trained on this data: .*numpy.*, line 7\)"):
        check(source)


SUBCLASS = """
    class Model(keras.Model):
        def __init__(self, num_outputs, **kwargs):
            super().__init__(**kwargs)
            self.num_outputs = num_outputs
            self.head = keras.layers.Dense(num_outputs, "softmax")

        def call(self, x):
            return self.head(x)

        def {config}(self):
            return super().get_config() | {{"num_outputs": self.num_outputs}}


    def build(hp, num_outputs):
        return Model(num_outputs)
    """


def test_a_model_that_is_built_by_its_first_rows(check: Check) -> None:
    assert check(SUBCLASS.format(config="get_config")).problems == ()


def test_a_model_that_could_not_be_exported(check: Check) -> None:
    with pytest.raises(
        BuilderError, match=r"Keras can't save the model of (.|\n)*implement `get_config"
    ):
        check(SUBCLASS.format(config="no_config"))


FITTING = """
    import keras_tuner

    class build(keras_tuner.HyperModel):
        def build(self, hp, input_shape, num_outputs):
            units = hp.Int("units", 4, 32)
            head = keras.layers.Dense(num_outputs, "softmax")
            model = keras.Sequential([keras.Input(input_shape), keras.layers.Dense(units), head])
            model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
            return model

        def fit(self, hp, model, *args, **kwargs):
            batch_size = hp.Int("batch_size", 16, 64)
            if hp.Boolean("shuffled"):
                hp.Float("share", 0.0, 1.0)
            if hp.get("learning_rate") > 1:
                raise ValueError("too fast")
            return model.fit(*args, batch_size=batch_size, epochs=500, **kwargs)
    """


def test_what_a_hypermodel_s_own_fit_declares_is_known(check: Check) -> None:
    space = {"learning_rate": 0.1, "share": 0.5, "batch_size": integer(20, 30)}
    found = check(FITTING, space=space)
    assert found.problems == ()
    assert set(found.parameters) == {"units", "batch_size", "shuffled", "share"}
    assert set(found.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}


@pytest.mark.long
def test_what_a_hypermodel_s_own_fit_never_asks_for(check: Check) -> None:
    space = {"learning_rate": 0.1, "shard": 0.5, "batch_size": integer(2, 30)}
    found = problems(check(FITTING, space=space))
    assert set(found) == {("space", "batch_size")}
    found = problems(check(FITTING, space=space | {"batch_size": 32}))
    assert set(found) == {("space", "shard")}
    assert "did you mean 'share'?" in found["space", "shard"]


def test_a_hypermodel_s_own_fit_that_raises(check: Check) -> None:
    with pytest.raises(BuilderError, match=r"can't be trained on this data: ValueError: too fast"):
        check(FITTING, space={"learning_rate": 2.0})


def test_averages_that_a_hypermodel_s_own_fit_has_too_late(check: Check) -> None:
    source = """
        import keras_tuner

        class Averaging(keras_tuner.HyperModel):
            def build(self, hp, num_outputs):
                model = keras.Sequential([keras.layers.Dense(num_outputs, "softmax")])
                optimizer = keras.optimizers.Adam(use_ema=True{})
                model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
                return model

            def fit(self, hp, model, *args, **kwargs):
                return model.fit(*args, **kwargs)

        build = Averaging
        """
    with pytest.raises(BuilderError, match=r"use_ema=True.*: set ema_overwrite_frequency too"):
        check(source.format(""))
    assert check(source.format(", ema_overwrite_frequency=10")).problems == ()


def test_names_of_the_trainer_that_the_builder_has_for_itself(check: Check) -> None:
    source = """
        def build(hp, input_shape, num_outputs):
            head = keras.layers.Dense(num_outputs, "softmax")
            model = keras.Sequential([keras.Input(input_shape), head])
            chosen = hp.Choice("optimizer", ["nadam", "adamax"])
            model.compile(chosen, "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model
        """
    assert check(source).problems == ()
    assert check(source, space={"optimizer": "adamax"}).problems == ()
    found = problems(check(source, space={"optimizer": "adam"}))
    assert "one of 'nadam', 'adamax' as the builder" in found["space", "optimizer"]
    # Where the builder does not ask for it, the trainer does.
    found = problems(check(PLAIN, space={"optimizer": "adamax", "epochs": 0}))
    assert set(found) == {("space", "optimizer"), ("space", "epochs")}


LINEAR = """
    import keras_tuner

    class build(keras_tuner.HyperModel):
        def build(self, hp, input_shape, num_outputs):
            head = keras.layers.Dense(num_outputs, "softmax")
            model = keras.Sequential([keras.Input(input_shape), head])
            model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model
"""

MEASURING = f"""{LINEAR}
        def fit(self, hp, model, x, y, validation_data, **kwargs):
            held, targets = validation_data
            return model.fit(1.0 * x, y, validation_data=(1.0 * held, targets), **kwargs)
    """


def test_a_fit_that_measures_other_rows(check: Check) -> None:
    loss = {"metric": "val_loss", "direction": "minimize"}
    assert check(MEASURING, objective=loss).warnings == ()
    [warning] = check(MEASURING.replace("1.0", "100"), objective=loss).warnings
    assert "reports val_loss" in warning
    assert "as layers, or into `data.preprocess`" in warning


FOLDS = f"""{LINEAR}
        def fit(self, hp, model, x, y, validation_data, **kwargs):
            held = dict(validation_data=(x[4:], y[4:]))
            model.fit(x[:4], y[:4], **held, **kwargs)
            model.fit(x[4:], y[4:], **held, **kwargs)
            return 0.123
    """


def test_what_fit_returns_beside_its_epochs(check: Check) -> None:
    warnings = check(FOLDS).warnings
    assert any("returns another val_accuracy (0.123)" in words for words in warnings)
    # Without validation it is the only one.
    warnings = check(FOLDS.replace("**held, ", "")).warnings
    assert not any("returns another" in words for words in warnings)


def test_weights_of_classes_that_a_fit_loses(check: Check) -> None:
    training = {"epochs": 1, "class_weight": "balanced"}
    found = problems(check(FOLDS, training=training))
    assert "hands model.fit other rows" in found["training", "class_weight"]
    assert check(MEASURING.replace("1.0 * ", ""), training=training).problems == ()


def test_a_model_that_only_fit_can_evaluate(check: Check) -> None:
    source = """
        import keras_tuner

        def own(y_true, y_pred):
            return keras.ops.mean(keras.ops.square(y_true[:, :10] - y_pred))

        class build(keras_tuner.HyperModel):
            def build(self, hp, input_shape, num_outputs):
                head = keras.layers.Dense(num_outputs, "softmax")
                model = keras.Sequential([keras.Input(input_shape), head])
                model.compile("sgd", own, metrics=["accuracy"])
                return model

            def fit(self, hp, model, x, y, validation_data, **kwargs):
                held, targets = validation_data
                y, targets = (keras.utils.to_categorical(each, 10) for each in (y, targets))
                return model.fit(x, y, validation_data=(held, targets), **kwargs)
        """
    [warning] = check(source).warnings
    assert "can't be evaluated on rows as the data has them, as `hpo export` does" in warning


def test_a_name_that_one_branch_leaves_to_the_trainer(check: Check) -> None:
    source = """
        def build(hp, input_shape, num_outputs):
            head = keras.layers.Dense(num_outputs, "softmax")
            model = keras.Sequential([keras.Input(input_shape), head])
            if hp.Choice("kind", ["own", "plain"]) == "own":
                chosen = hp.Choice("optimizer", ["lion", "adam"])
                model.compile(chosen, "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model
        """
    space = {"optimizer": {"type": "categorical", "choices": ["lion", "adam"]}}
    assert set(problems(check(source, space=space))) == {("space", "optimizer", "choices", 0)}
    assert check(source, space={**space, "kind": "own"}).problems == ()


def test_a_value_that_only_fit_returns(check: Check) -> None:
    source = FITTING.replace("return model.fit", "model.fit").replace("500, **kwargs)", "1)")
    source = source.rstrip(" ") + "            return {'score': 1.0}\n"
    sections = {"space": {"learning_rate": 0.1}}
    assert check(source, **sections, objective={"metric": "score", "direction": "maximize"})
    found = problems(check(source, **sections))
    assert "reported are: accuracy, loss, score" in found["objective", "metric"]


def test_a_reversed_scale_in_a_grid(check: Check) -> None:
    source = PLAIN.replace('"depth", 1, 3', '"depth", 1, 3, sampling="reverse_log"')
    grid = {"type": "grid", "search_space": {"depth": [1, 2], "units_0": [4, 8]}}
    found = problems(check(source, search={"trials": 4, "sampler": grid}))
    assert (
        "can't hold 'depth', whose scale is reversed" in found["search", "sampler", "search_space"]
    )


def test_a_builder_that_downloads_where_nothing_can_be_reached(check: Check) -> None:
    source = PLAIN.replace(
        "layers = [", 'keras.utils.get_file("w", "http://127.0.0.1:9/w")\n        layers = ['
    )
    with pytest.raises(BuilderError, match="it downloads a file, pretrained weights perhaps"):
        check(source)
