"""Surfaces of masks, and distances between them.

Legend: `_XYZ` a boolean mask on the crop, `_N3` N points as voxel indices. Two surfaces are known here: the voxels of a
mask that have a neighbour across a face outside it (outside the volume counts as outside the mask), and the corners
between voxels where a marching-cubes surface passes, with its area.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from scipy.spatial import cKDTree

from segbench.metrics.surfels import surfel_areas

# A nearest-neighbour query costs about as much as the distance transform of this many voxels: a tree over a surface is
# quicker until the surface fills a good part of the crop, as noise does. Few queries are quick in any case.
VOXELS_PER_QUERY = 25
FEW_QUERIES = 20_000


@dataclass(frozen=True)
class Surface:
    """Points of a surface on a grid of `shape`: their `flat` positions, and their `areas` in mm2 where known."""

    shape: tuple[int, int, int]
    flat: np.ndarray
    areas: np.ndarray | None = None

    @property
    def indices_N3(self) -> np.ndarray:
        """Indices along x, y and z."""
        return np.stack(np.unravel_index(self.flat, self.shape), axis=1)

    def mask(self) -> np.ndarray:
        """Return the points as a mask of the grid."""
        mask = np.zeros(self.shape, dtype=bool)
        mask.ravel()[self.flat] = True
        return mask


def voxel_surface(mask_XYZ: np.ndarray) -> Surface:
    """Return the voxels of the mask with at least one of six neighbours outside it; none for an empty mask."""
    padded = np.pad(mask_XYZ, 1)
    inner = mask_XYZ.copy()
    middle = slice(1, -1)
    for side in (slice(None, -2), slice(2, None)):
        inner &= padded[side, middle, middle]
        inner &= padded[middle, side, middle]
        inner &= padded[middle, middle, side]
    return Surface(mask_XYZ.shape, np.flatnonzero(inner ^ mask_XYZ))


def corner_surface(mask_XYZ: np.ndarray, spacing_mm_xyz: tuple[float, float, float]) -> Surface:
    """Return the grid corners that the surface passes, with areas; the corner grid is one longer than the mask's."""
    code = np.pad(mask_XYZ.view(np.uint8), 1)
    code = 2 * code[:, :, :-1] + code[:, :, 1:]
    code = 4 * code[:, :-1] + code[:, 1:]
    code = 16 * code[:-1] + code[1:]
    flat = np.flatnonzero(code - np.uint8(1) < 254)  # neither 0 nor 255: 0 wraps round to 255
    return Surface(code.shape, flat, surfel_areas(spacing_mm_xyz)[code.ravel()[flat]])


def distances(
    query: Surface,
    target: Surface,
    *,
    spacing_mm_xyz: tuple[float, float, float],
    tolerance_mm: float | None = None,
    limit_mm: float = np.inf,
    threads: int = 1,
) -> np.ndarray:
    """Return the distance in mm from each point of `query` to the nearest of `target`, both on the same grid.

    Exact to a relative 1e-6, and to the last bit around `tolerance_mm`, where the outcome of a comparison hangs on it.
    Distances beyond `limit_mm` may be given as infinity. Both surfaces need at least one point.
    """
    found = np.zeros(len(query.flat))
    target_mask = target.mask()
    apart = np.flatnonzero(~target_mask.ravel()[query.flat])
    if len(apart) > max(FEW_QUERIES, target_mask.size // VOXELS_PER_QUERY):
        np.logical_not(target_mask, out=target_mask)
        unit_mm = spacing_mm_xyz[-1]  # float32 distances lose less in units of a voxel
        relative = tuple(size / unit_mm for size in spacing_mm_xyz)
        squared = edt.edtsq(target_mask, anisotropy=relative, parallel=threads)
        found[apart] = unit_mm * np.sqrt(squared.ravel()[query.flat[apart]], dtype=np.float64)
        if tolerance_mm is None:
            return found
        apart = np.flatnonzero(np.abs(found - tolerance_mm) <= 1e-5 * tolerance_mm)
    del target_mask
    if len(apart):
        near = Surface(query.shape, query.flat[apart])
        found[apart] = _tree_distances(near, target, spacing_mm_xyz, limit_mm, threads)
    return found


def _tree_distances(
    query: Surface, target: Surface, spacing_mm_xyz: tuple[float, float, float], limit_mm: float, threads: int
) -> np.ndarray:
    query_N3, target_N3 = query.indices_N3, target.indices_N3
    tree = cKDTree(target_N3 * np.asarray(spacing_mm_xyz), balanced_tree=False, compact_nodes=False)
    bound = limit_mm * (1 + 1e-6)
    _, nearest = tree.query(query_N3 * np.asarray(spacing_mm_xyz), distance_upper_bound=bound, workers=threads)
    reached = nearest < len(target_N3)
    # From whole offsets, because coordinates in mm have lost the last bits that decide a tie with the tolerance.
    offsets_mm = (query_N3[reached] - target_N3[nearest[reached]]) * np.asarray(spacing_mm_xyz)
    found = np.full(len(query_N3), np.inf)
    found[reached] = np.sqrt((offsets_mm * offsets_mm).sum(axis=1))
    return found
