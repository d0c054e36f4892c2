"""Where a hyperparameter's value comes from: the builder declares, the study file has the say."""

from hpo.space.values import SpaceError, Suggest, Values

__all__ = ["SpaceError", "Suggest", "Values"]
