"""Control: the reference itself on the preprocessed grid; what it loses, every model loses to resampling."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Oracle",
    "predicts": "the reference itself on the preprocessed grid; what it loses, every model loses to resampling",
}


def fit(cases, task) -> None:
    """Nothing is learned."""


def predict(fitted: None, case, task) -> np.ndarray:
    """Return the preprocessed reference labels_ZYX (uint8)."""
    return np.asarray(case.labels[:])
