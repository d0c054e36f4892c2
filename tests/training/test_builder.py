from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import pytest

from hpo.data import DataSignature
from hpo.errors import BuilderError
from hpo.spec.models import ModelSpec
from hpo.training.builder import Builder, load_builder

pytestmark = pytest.mark.keras

SIGNATURE = DataSignature("multiclass", (4,), 3, 3, ("a", "b", "c"), (4, 1, 1), (2, 1, 1), "")
MODEL = "keras.Sequential([keras.Input({shape}), keras.layers.Dense({units})])"
HEAD = "import keras\nimport keras_tuner\n"

Load = Callable[..., Builder]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes the source of a module `user` and loads `name` from it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)

    def load_from(source: str, name: str = "build", module: str = "user", **args: Any) -> Builder:
        file = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(HEAD + source)
        sys.modules.pop(module, None)
        spec = ModelSpec(builder=f"{module}:{name}", args=args)
        return load_builder(spec, SIGNATURE, tmp_path)

    yield load_from
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def built(builder: Builder) -> tuple[Any, Any]:
    """The shapes of a model's input and output."""
    model = builder.build(keras_tuner.HyperParameters())
    return model.input_shape, model.output_shape


FUNCTION = f"""
def build(hp, num_outputs, *, input_shape, width=7):
    return {MODEL.format(shape="input_shape", units="width")}
"""


def test_a_function(load: Load) -> None:
    assert built(load(FUNCTION)) == ((None, 4), (None, 7))
    assert built(load(FUNCTION, width=2)) == ((None, 4), (None, 2))


def test_arguments_go_before_facts_of_the_data(load: Load) -> None:
    assert built(load(FUNCTION, input_shape=[9])) == ((None, 9), (None, 7))


HYPER_MODEL = f"""
class Net(keras_tuner.HyperModel):
    def __init__(self, num_outputs, name=None):
        super().__init__(name)
        self.num_outputs = num_outputs

    def build(self, hp, input_shape, width=None):
        return {MODEL.format(shape="input_shape", units="width or self.num_outputs")}

instance = Net(5)
"""


def test_a_hypermodel_class(load: Load) -> None:
    assert built(load(HYPER_MODEL, "Net")) == ((None, 4), (None, 3))
    # KerasTuner hides the parameters of `build` behind a wrapper.
    assert built(load(HYPER_MODEL, "Net", width=6)) == ((None, 4), (None, 6))


def test_a_hypermodel_instance(load: Load) -> None:
    assert built(load(HYPER_MODEL, "instance")) == ((None, 4), (None, 5))


def test_a_class_that_is_no_hypermodel(load: Load) -> None:
    source = f"""
class Net:
    def build(self, hp, num_outputs):
        return {MODEL.format(shape="(4,)", units="num_outputs")}
"""
    assert built(load(source, "Net")) == ((None, 4), (None, 3))


def test_any_keyword(load: Load) -> None:
    source = f"""
def build(hp, **options):
    return {MODEL.format(shape="(4,)", units='options["width"]')}
"""
    assert built(load(source, width=2)) == ((None, 4), (None, 2))


def test_a_builder_in_a_package(load: Load) -> None:
    assert built(load(FUNCTION, module="nets.user")) == ((None, 4), (None, 7))


def test_no_such_module(load: Load, tmp_path: Path) -> None:
    load(FUNCTION, module="nets.dense")
    spec = ModelSpec(builder="nets.dens:build")
    with pytest.raises(BuilderError, match=r"no module 'nets.dens' .*nets/dens.py there; did you"):
        load_builder(spec, SIGNATURE, tmp_path)
    with pytest.raises(BuilderError, match=r"expected the file elsewhere.py there \(choose"):
        load_builder(ModelSpec(builder="elsewhere:build"), SIGNATURE, tmp_path)


def test_no_such_name(load: Load) -> None:
    with pytest.raises(BuilderError, match="module user has no 'biuld'; did you mean 'build'"):
        load(FUNCTION, "biuld")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 / 0", r"importing user failed with ZeroDivisionError: .*user.py, line 3\)"),
        ("import no_such_thing", r"importing user failed with Mod.*'no_such_thing' \(.*line 3\)"),
        ("def build(:", r"importing user failed with SyntaxError: .*line 3"),
        ("raise SystemExit(3)", r"importing user failed with SystemExit: 3 \(.*line 3\)"),
    ],
)
def test_a_module_that_fails_to_import(load: Load, line: str, message: str) -> None:
    with pytest.raises(BuilderError, match=message):
        load(line)


def test_a_class_that_can_not_be_created(load: Load) -> None:
    source = """
class Net(keras_tuner.HyperModel):
    def __init__(self):
        raise ValueError("no")
"""
    with pytest.raises(BuilderError, match=r"creating user:Net failed .*no \(.*user.py, line 6\)"):
        load(source, "Net")


def test_a_parameter_that_nobody_has(load: Load) -> None:
    with pytest.raises(BuilderError, match=r"user:build wants width, .* known: class_names, depth"):
        load("def build(hp, width): pass", depth=3)


def test_an_argument_that_nobody_takes(load: Load) -> None:
    with pytest.raises(
        BuilderError, match=r"takes no widht; it takes: input_shape, num_outputs, w"
    ):
        load(FUNCTION, widht=3)
    with pytest.raises(BuilderError, match="takes no hp; it takes: nothing"):
        load("def build(hp): pass", hp=3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("build = 3", "must be a function or a HyperModel, received int"),
        ("class build(keras.Model): pass", "is a model; expected a function"),
    ],
)
def test_what_is_no_builder(load: Load, source: str, message: str) -> None:
    with pytest.raises(BuilderError, match=message):
        load(source)


def test_a_builder_that_returns_nothing(load: Load) -> None:
    builder = load("def build(hp): keras.Sequential()")
    with pytest.raises(BuilderError, match=r"received NoneType; does it end with a return"):
        builder.build(keras_tuner.HyperParameters())


def test_the_hash_follows_the_source(load: Load) -> None:
    first = load(FUNCTION).source_hash
    assert load(FUNCTION).source_hash == first
    assert load(FUNCTION + "\n").source_hash != first


def test_the_hash_follows_the_definition_behind_an_import(load: Load) -> None:
    def hash_with(units: int) -> str:
        load(FUNCTION.replace("width=7", f"width={units}"), module="inner")
        return load("from inner import build").source_hash

    assert hash_with(7) == hash_with(7)
    assert hash_with(7) != hash_with(8)
