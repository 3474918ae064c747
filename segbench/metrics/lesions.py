"""Lesion-wise detection: connected components that share at least one voxel with the other mask are found.

The connectivity is 26, or 18 as in the evaluation of the autoPET challenge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np

from segbench.metrics.crop import PLANES_AT_ONCE

Connectivity = Literal[18, 26]
CONNECTIVITY: Connectivity = 26
AUTOPET_CONNECTIVITY: Connectivity = 18


@dataclass(frozen=True)
class Detection:
    """Component counts, and the voxels of the components that share none with the other mask."""

    reference_count: int
    reference_found: int
    prediction_count: int
    prediction_true: int
    false_positive_voxels: int
    false_negative_voxels: int

    @property
    def recall(self) -> float | None:
        """Fraction of reference components that were found; None without any."""
        return self.reference_found / self.reference_count if self.reference_count else None

    @property
    def precision(self) -> float | None:
        """Fraction of predicted components that are true; None without any."""
        return self.prediction_true / self.prediction_count if self.prediction_count else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; 0 when one side has no component, None when neither has."""
        if not self.reference_count and not self.prediction_count:
            return None
        precision, recall = self.precision or 0.0, self.recall or 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def detect(
    reference_XYZ: np.ndarray, prediction_XYZ: np.ndarray, connectivity: Connectivity = CONNECTIVITY
) -> Detection:
    """Return the detection counts of two boolean masks of the same shape, either of which may be empty."""
    reference_sizes, reference_hit = _components(reference_XYZ, prediction_XYZ, connectivity)
    prediction_sizes, prediction_hit = _components(prediction_XYZ, reference_XYZ, connectivity)
    return Detection(
        reference_count=len(reference_sizes),
        reference_found=int(reference_hit.sum()),
        prediction_count=len(prediction_sizes),
        prediction_true=int(prediction_hit.sum()),
        false_positive_voxels=int(prediction_sizes[~prediction_hit].sum()),
        false_negative_voxels=int(reference_sizes[~reference_hit].sum()),
    )


def _components(
    mask_XYZ: np.ndarray, other_XYZ: np.ndarray, connectivity: Connectivity
) -> tuple[np.ndarray, np.ndarray]:
    """Return per component its voxel count and whether it shares a voxel with the other mask."""
    labels, count = cc3d.connected_components(
        mask_XYZ.view(np.uint8), connectivity=connectivity, binary_image=True, return_N=True
    )
    sizes, shared = np.zeros((2, count + 1), dtype=np.int64)
    for first in range(0, len(labels), PLANES_AT_ONCE):  # counting widens what it counts to 64 bits
        part = slice(first, first + PLANES_AT_ONCE)
        inside, both = mask_XYZ[part], mask_XYZ[part] & other_XYZ[part]
        sizes += np.bincount(labels[part][inside], minlength=count + 1)
        shared += np.bincount(labels[part][both], minlength=count + 1)
    return sizes[1:], shared[1:] > 0
