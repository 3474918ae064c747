"""Control: the reference shifted by two prepared voxels along every axis; what a small misplacement costs."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Shifted oracle",
    "kind": "control",
    "citation": "segbench",
    "url": "",
    "licence": "Apache-2.0",
    "original_licence": "",
    "version": "1",
    "fidelity": "control",
    "deviations": [],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": [],
    "backbone": "own",
    "loss": "none",
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
