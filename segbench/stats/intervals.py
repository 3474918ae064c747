"""Confidence intervals of a cell: patients are resampled, misses that were not seen are allowed for.

`patient_draws` returns draws of a cell's mean; see docs/statistics.md for the measured coverage and its command.

Legend of suffixes: P patients, K structures, B draws.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def concentration(patients: int, confidence: float = 0.95) -> float:
    """Return the Dirichlet parameter whose draws of a mean are as wide as Student's interval for that many patients."""
    widening = (stats.t.ppf((1 + confidence) / 2, patients - 1) / stats.norm.ppf((1 + confidence) / 2)) ** 2
    return max(((patients - 1) / widening - 1) / patients, 0.1)


def patient_draws(
    sums_PK: np.ndarray,
    counts_PK: np.ndarray,
    *,
    worst: float | None,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
    unseen: float = 0.5,
) -> np.ndarray:
    """Return draws (B,) of the mean over structures of the per-structure means.

    sums_PK, counts_PK: per patient and structure, the sum and the number of the values that count. `worst` is the
    value of a complete miss, or None when a miss does not enter the mean; `unseen` pseudo-observations of it are
    shared by the structures. Fewer than two patients give NaN draws.
    """
    patients, structures = sums_PK.shape
    if patients < 2:
        return np.full(resamples, np.nan)
    weights_BP = rng.standard_gamma(concentration(patients, confidence), size=(resamples, patients)) + 1e-300
    means_BK = (weights_BP @ sums_PK) / (weights_BP @ counts_PK)
    if worst is not None:
        scored = np.count_nonzero(counts_PK, axis=0)
        share_BK = rng.beta(unseen / structures, scored, size=(resamples, structures))
        means_BK = (1 - share_BK) * means_BK + share_BK * worst
    return means_BK.mean(axis=1)
