"""One structure in a reference and a prediction: surfaces and distances are computed once, when first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from segbench.metrics.lesions import AUTOPET_CONNECTIVITY, Detection, detect
from segbench.metrics.surface import Surface, corner_surface, distances, voxel_surface

UNIT_SPACING = (1.0, 1.0, 1.0)
Spacing = tuple[float, float, float]
Directed = tuple[np.ndarray, np.ndarray]
"""Distances from the reference's surface to the prediction's, and back."""


def pooled_percentile(directed: Directed) -> float:
    """Return the 95th percentile of both directions pooled."""
    return float(np.percentile(np.concatenate(directed), 95))


class MaskPair:
    """Two boolean masks on a common crop; nothing outside the crop belongs to either."""

    def __init__(
        self,
        reference_XYZ: np.ndarray,
        prediction_XYZ: np.ndarray,
        *,
        spacing_mm_xyz: Spacing,
        tolerance_mm: float | None = None,
        threads: int = 1,
    ):
        self.reference_XYZ, self.prediction_XYZ = reference_XYZ, prediction_XYZ
        self.spacing_mm_xyz, self.tolerance_mm, self.threads = spacing_mm_xyz, tolerance_mm, threads

    @cached_property
    def reference_voxels(self) -> int:
        """Voxels of the reference."""
        return int(np.count_nonzero(self.reference_XYZ))

    @cached_property
    def prediction_voxels(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction_XYZ))

    @cached_property
    def shared_voxels(self) -> int:
        """Voxels of both."""
        return int(np.count_nonzero(self.reference_XYZ & self.prediction_XYZ))

    @property
    def status(self) -> str:
        """What the masks are: ok, both_empty, reference_empty or prediction_empty."""
        if self.reference_voxels and self.prediction_voxels:
            return "ok"
        if not self.reference_voxels and not self.prediction_voxels:
            return "both_empty"
        return "prediction_empty" if self.reference_voxels else "reference_empty"

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm_xyz))

    @cached_property
    def detection(self) -> Detection:
        """Lesion-wise counts of 26-connected components."""
        return detect(self.reference_XYZ, self.prediction_XYZ)

    @cached_property
    def autopet_detection(self) -> Detection:
        """Lesion-wise counts of 18-connected components."""
        return detect(self.reference_XYZ, self.prediction_XYZ, AUTOPET_CONNECTIVITY)

    @cached_property
    def distances_mm(self) -> Directed:
        """Distances between the voxel surfaces of two masks that are not empty."""
        return self._directed(self.spacing_mm_xyz)

    @cached_property
    def hd95_voxels(self) -> float:
        """Pooled HD95 at unit spacing."""
        known = self.spacing_mm_xyz == UNIT_SPACING
        return pooled_percentile(self.distances_mm if known else self._directed(UNIT_SPACING))

    @cached_property
    def area_within_tolerance(self) -> float:
        """Fraction of both marching-cubes surfaces' area that lies within the tolerance of the other, 0 to 1."""
        assert self.tolerance_mm is not None, "the normalised surface Dice needs a tolerance"
        surfaces = corner_surface(self.reference_XYZ), corner_surface(self.prediction_XYZ)
        within = total = 0.0
        for own, other in (surfaces, surfaces[::-1]):
            near = self._distances(own, other, self.spacing_mm_xyz, limit_mm=self.tolerance_mm) <= self.tolerance_mm
            within += own.area_mm2(self.spacing_mm_xyz, near)
            total += own.area_mm2(self.spacing_mm_xyz)
        return within / total

    @cached_property
    def _surfaces(self) -> tuple[Surface, Surface]:
        return voxel_surface(self.reference_XYZ), voxel_surface(self.prediction_XYZ)

    def _directed(self, spacing: Spacing) -> Directed:
        reference, prediction = self._surfaces
        return self._distances(reference, prediction, spacing), self._distances(prediction, reference, spacing)

    def _distances(self, query: Surface, target: Surface, spacing: Spacing, *, limit_mm: float = np.inf) -> np.ndarray:
        return distances(
            query,
            target,
            spacing_mm_xyz=spacing,
            tolerance_mm=self.tolerance_mm,
            limit_mm=limit_mm,
            threads=self.threads,
        )
