"""Data for the studies in this folder that no file has to be fetched for."""

from __future__ import annotations

import pandas as pd
from sklearn import datasets


def breast_cancer() -> pd.DataFrame:
    """Cells of 569 biopsies (Wisconsin, 1995): 30 measures and a diagnosis."""
    bunch = datasets.load_breast_cancer(as_frame=True)
    return bunch.data.assign(diagnosis=bunch.target.map(dict(enumerate(bunch.target_names))))


def diabetes() -> pd.DataFrame:
    """442 patients (Efron and others, 2004): ten measures, one of them the sex, and how the
    disease went on within a year."""
    frame = datasets.load_diabetes(as_frame=True, scaled=False).frame
    return frame.assign(sex=frame["sex"].map({1: "a", 2: "b"}))
