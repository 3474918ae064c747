"""Control: background everywhere; the floor of every overlap score."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Empty",
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


def fit(cases, task) -> None:
    """Nothing is learned."""


def predict(fitted: None, case, task) -> np.ndarray:
    """Return zeros of the prepared shape (labels_ZYX, uint8)."""
    return np.zeros(case.labels.shape, dtype=np.uint8)
