"""One structure in a reference and a prediction: surfaces and distances are computed once, when first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from segbench.metrics.lesions import Detection, detect
from segbench.metrics.surface import Surface, corner_surface, distances, voxel_surface

UNIT_SPACING = (1.0, 1.0, 1.0)
Spacing = tuple[float, float, float]
Directed = tuple[np.ndarray, np.ndarray]
"""Distances from the reference's surface to the prediction's, and back."""


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
        """Lesion-wise counts."""
        return detect(self.reference_XYZ, self.prediction_XYZ)

    @cached_property
    def distances_mm(self) -> Directed:
        """Distances between the voxel surfaces of two masks that are not empty."""
        return self._directed(*self._surfaces, self.spacing_mm_xyz)

    @cached_property
    def distances_voxels(self) -> Directed:
        """The same at unit spacing."""
        return self.distances_mm if self.spacing_mm_xyz == UNIT_SPACING else self._unit_distances

    @cached_property
    def area_within_tolerance(self) -> float:
        """Share of both marching-cubes surfaces' area that lies within the tolerance of the other, 0 to 1."""
        reference = corner_surface(self.reference_XYZ, self.spacing_mm_xyz)
        prediction = corner_surface(self.prediction_XYZ, self.spacing_mm_xyz)
        forth, back = self._directed(reference, prediction, self.spacing_mm_xyz, limit_mm=self.tolerance_mm)
        within = reference.areas[forth <= self.tolerance_mm].sum() + prediction.areas[back <= self.tolerance_mm].sum()
        return float(within / (reference.areas.sum() + prediction.areas.sum()))

    @cached_property
    def _surfaces(self) -> tuple[Surface, Surface]:
        return voxel_surface(self.reference_XYZ), voxel_surface(self.prediction_XYZ)

    @cached_property
    def _unit_distances(self) -> Directed:
        return self._directed(*self._surfaces, UNIT_SPACING)

    def _directed(
        self, reference: Surface, prediction: Surface, spacing: Spacing, *, limit_mm: float = np.inf
    ) -> Directed:
        settings = {"spacing_mm_xyz": spacing, "tolerance_mm": self.tolerance_mm, "threads": self.threads}
        forth = distances(reference, prediction, limit_mm=limit_mm, **settings)
        return forth, distances(prediction, reference, limit_mm=limit_mm, **settings)
