"""Control: background everywhere; the lower bound of every overlap score."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Empty",
    "predicts": "background everywhere; the lower bound of every overlap score",
}


def fit(cases, task) -> None:
    """Nothing is learned."""


def predict(fitted: None, case, task) -> np.ndarray:
    """Return zeros of the preprocessed shape (labels_ZYX, uint8)."""
    return np.zeros(case.labels.shape, dtype=np.uint8)
