"""Modules that are imported when something of them is asked for, and not before.

TensorFlow, Keras and KerasTuner import a good deal for what a trainer seldom does: two fifths of
the time of their import.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# In these packages the modules that need much else; and such that are imported by name alone,
# without anything out of them. Names that another version does not have do no harm.
SELDOM_USED = (
    "h5py",
    "keras._tf_keras.keras.visualization",
    "keras._tf_keras.keras.wrappers",
    "keras.src.trainers.data_adapters.array_slicing",
    "keras.src.visualization",
    "keras.visualization",
    "keras.wrappers",
    "keras_tuner.src.protos.v4.keras_tuner_pb2_grpc",
    "keras_tuner.src.protos.v4.service_pb2_grpc",
    "pandas",
    "requests",
    "rich.console",
    "rich.markup",
    "rich.table",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "sklearn.exceptions",
    "sklearn.gaussian_process",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "tensorflow._api.v2.__internal__.feature_column",
    "tensorflow._api.v2.compat.v1",
    "tensorflow._api.v2.compat.v2",
    "tensorflow._api.v2.debugging.experimental",
    "tensorflow._api.v2.feature_column",
    "tensorflow._api.v2.profiler",
    "tensorflow._api.v2.raw_ops",
    "tensorflow._api.v2.tpu",
    "tensorflow.python.keras.models",
)
# Asked for by whoever uses a module. Other names with underscores, such as `__wrapped__`, are asked
# for by tools that walk over all modules there are, and run none.
_TELLING = ("__all__", "__version__")


class DeferredModules(MetaPathFinder):
    """From now on these modules are found as usual, but run only when one of their names is used.

    So `import pandas` costs nothing, and `pandas.Series` or `from pandas import Series` all of it.
    A submodule that is imported and not deferred itself runs those above it first, as always.

    Attributes:
        on_run: Told the name of a module that has run.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.on_run: Callable[[str], None] = _tell_nobody
        self._names = set(names)
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            _run_packages_of(name)
            return None
        self._names.remove(name)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferred(spec.loader, lambda: self.on_run(name))
        return spec


class _Deferred(Loader):
    """Leaves a function in the module that runs it (PEP 562)."""

    def __init__(self, loader: Loader, on_run: Callable[[], None]) -> None:
        self._loader = loader
        self._on_run = on_run
        # A module that is asked for a name by what it imports itself is not run twice.
        self._running = False
        self._lock = threading.RLock()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def ask(name: str) -> Any:
            if not name.startswith("__") or name in _TELLING:
                self.run(module)
                # Where it is still there, the module is running, and has not come to the name.
                if vars(module).get("__getattr__") is not ask:
                    return getattr(module, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = ask  # type: ignore[method-assign]

    def run(self, module: ModuleType) -> None:
        """Raises whatever the module raises, and again the next time."""
        with self._lock:
            if self._running or module.__loader__ is not self:
                return
            self._running = True
            ask = module.__getattr__
            try:
                _run_packages_of(module.__name__)
                self._loader.exec_module(module)
            finally:
                self._running = False
            # Many modules have a function of this name of their own.
            if vars(module).get("__getattr__") is ask:
                del module.__getattr__
            assert module.__spec__ is not None
            module.__spec__.loader = module.__loader__ = self._loader
        self._on_run()


def _tell_nobody(_name: str) -> None:
    """What has run is of no use to others."""


def _run_packages_of(name: str) -> None:
    """Runs the deferred packages that a module lies in."""
    package = name.rpartition(".")[0]
    if package:
        run_module(package)


def run_module(name: str) -> None:
    """Runs a module that was imported, if it is deferred, after the packages that it lies in."""
    _run_packages_of(name)
    module = sys.modules.get(name)
    loader = getattr(module, "__loader__", None)
    if module is not None and isinstance(loader, _Deferred):
        loader.run(module)
