"""Control: the reference itself on the prepared grid; what it loses, every model loses to resampling."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Oracle",
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
    """Return the prepared reference labels_ZYX (uint8)."""
    return np.asarray(case.labels[:])
