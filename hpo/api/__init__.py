"""The Python API: `hpo.tune` from a notebook or a script, on the same studies as the command."""

from hpo.api.study import Study, open_study
from hpo.api.tuning import tune

__all__ = ["Study", "open_study", "tune"]
