"""Hyperparameter optimization service for Keras: `hpo.tune` here, and the command `hpo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.api import Study, open_study, tune

__version__ = "0.1.0"
__all__ = ["Study", "__version__", "open_study", "tune"]


def __getattr__(name: str) -> Any:
    """Imports the API when it is asked for: a command that only reads does without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("hpo.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
