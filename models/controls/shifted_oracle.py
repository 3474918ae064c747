"""Control: the reference shifted by two preprocessed voxels along every axis; what a small misplacement costs."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Shifted oracle",
    "predicts": "the reference shifted by two preprocessed voxels along every axis; what a small misplacement costs",
}
SHIFT_VOXELS = 2


def fit(cases, task) -> None:
    """Nothing is learned."""


def predict(fitted: None, case, task) -> np.ndarray:
    """Return labels_ZYX moved towards higher indices, zeros entering at the border (uint8)."""
    labels_ZYX = np.asarray(case.labels[:])
    shifted_ZYX = np.zeros_like(labels_ZYX)
    shifted_ZYX[SHIFT_VOXELS:, SHIFT_VOXELS:, SHIFT_VOXELS:] = labels_ZYX[
        :-SHIFT_VOXELS, :-SHIFT_VOXELS, :-SHIFT_VOXELS
    ]
    return shifted_ZYX
