"""Surfaces of masks, and distances between them.

Legend: `_XYZ` a boolean mask on the crop, `_N3` N points as voxel indices. Two surfaces are known here: the voxels of a
mask that have a neighbour across a face outside it (outside the volume counts as outside the mask), and the corners
between voxels where a marching-cubes surface passes, with its area.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import edt
import numpy as np
from scipy.spatial import cKDTree

from segbench.metrics.crop import PLANES_AT_ONCE
from segbench.metrics.surfels import surfel_areas

# A nearest-neighbour query costs about as much as the distance transform of this many voxels: a tree over a surface is
# quicker until the surface fills a good part of the crop, as noise does. Few queries are quick in any case.
VOXELS_PER_QUERY = 25
FEW_QUERIES = 20_000
POINTS_AT_ONCE = 4096
"""Points whose coordinates are made at once."""
LEAF_POINTS = 64
"""Points of a leaf of the tree: fewer make it larger, and queries far from the target slower."""


@dataclass(frozen=True)
class Surface:
    """Points of a surface on a grid of `shape`: their `flat` positions, and their `codes` where areas are wanted."""

    shape: tuple[int, int, int]
    flat: np.ndarray
    codes: np.ndarray | None = None

    def indices_N3(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Return the indices along x, y and z of the chosen points, as whole numbers in float64."""
        return np.stack(np.unravel_index(self.flat[chosen], self.shape), axis=1, dtype=np.float64)

    def mask(self) -> np.ndarray:
        """Return the points as a mask of the grid."""
        mask = np.zeros(self.shape, dtype=bool)
        mask.ravel()[self.flat] = True
        return mask

    def area_mm2(self, spacing_mm_xyz: tuple[float, float, float], within: np.ndarray | slice = slice(None)) -> float:
        """Return the area of the points `within`, of all by default."""
        assert self.codes is not None, "only a corner surface has an area"
        return float(np.bincount(self.codes[within], minlength=256) @ surfel_areas(spacing_mm_xyz))


def voxel_surface(mask_XYZ: np.ndarray) -> Surface:
    """Return the voxels of the mask with at least one of six neighbours outside it; none for an empty mask."""
    padded = np.pad(mask_XYZ, 1)
    inner = mask_XYZ.copy()
    middle = slice(1, -1)
    for side in (slice(None, -2), slice(2, None)):
        inner &= padded[side, middle, middle]
        inner &= padded[middle, side, middle]
        inner &= padded[middle, middle, side]
    inner ^= mask_XYZ
    return Surface(mask_XYZ.shape, _positions(inner))


def corner_surface(mask_XYZ: np.ndarray) -> Surface:
    """Return the grid corners that the surface passes, with codes; the corner grid is one longer than the mask's."""
    padded = np.pad(mask_XYZ.view(np.uint8), 1)
    shape = tuple(size + 1 for size in mask_XYZ.shape)
    kind = np.min_scalar_type(math.prod(shape))
    flats, codes = [], []
    for first in range(0, shape[0], PLANES_AT_ONCE):
        code = padded[first : first + PLANES_AT_ONCE + 1]
        for axis, bits in ((2, 1), (1, 2), (0, 4)):
            code = _joined(code, axis, bits)
        flat = np.flatnonzero((code != 0) & (code != 255))
        codes.append(code.ravel()[flat])
        flats.append((flat + first * shape[1] * shape[2]).astype(kind))
    return Surface(shape, np.concatenate(flats), np.concatenate(codes))


def _joined(code_XYZ: np.ndarray, axis: int, bits: int) -> np.ndarray:
    """Join each code with the next one along an axis, which takes the lower `bits`."""
    lower, upper = [slice(None)] * 3, [slice(None)] * 3
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    joined = np.left_shift(code_XYZ[tuple(lower)], bits)
    joined |= code_XYZ[tuple(upper)]
    return joined


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
    apart = _positions(~target.mask().ravel()[query.flat])
    found = np.zeros(len(query.flat))
    if len(apart) > max(FEW_QUERIES, math.prod(target.shape) // VOXELS_PER_QUERY):
        found[apart] = _field_distances(query.flat[apart], target, spacing_mm_xyz, threads)
        if tolerance_mm is None:
            return found
        apart = np.flatnonzero(np.abs(found - tolerance_mm) <= 1e-5 * tolerance_mm)
    if len(apart):
        tree = _tree(target, spacing_mm_xyz)
        for part in _parts(len(apart)):
            chosen = apart[part]
            found[chosen] = _tree_distances(
                query.indices_N3(chosen),
                target,
                tree,
                spacing_mm_xyz=spacing_mm_xyz,
                limit_mm=limit_mm,
                threads=threads,
            )
    return found


def _field_distances(
    flat: np.ndarray, target: Surface, spacing_mm_xyz: tuple[float, float, float], threads: int
) -> np.ndarray:
    """Return the distance from each flat position, read from the distance transform of the whole crop."""
    outside_XYZ = target.mask()
    np.logical_not(outside_XYZ, out=outside_XYZ)
    unit_mm = spacing_mm_xyz[-1]  # float32 distances lose less in units of a voxel
    relative = tuple(size / unit_mm for size in spacing_mm_xyz)
    squared = edt.edtsq(outside_XYZ, anisotropy=relative, parallel=threads)
    return unit_mm * np.sqrt(squared.ravel()[flat], dtype=np.float64)


def _tree(target: Surface, spacing_mm_xyz: tuple[float, float, float]) -> cKDTree:
    points_mm_N3 = np.empty((len(target.flat), 3))
    for part in _parts(len(points_mm_N3)):
        np.multiply(target.indices_N3(part), spacing_mm_xyz, out=points_mm_N3[part])
    return cKDTree(points_mm_N3, leafsize=LEAF_POINTS, balanced_tree=False, compact_nodes=False)


def _tree_distances(
    query_N3: np.ndarray,
    target: Surface,
    tree: cKDTree,
    *,
    spacing_mm_xyz: tuple[float, float, float],
    limit_mm: float,
    threads: int,
) -> np.ndarray:
    bound = limit_mm * (1 + 1e-6)
    _, nearest = tree.query(query_N3 * spacing_mm_xyz, distance_upper_bound=bound, workers=threads)
    nearest = np.asarray(nearest)
    reached = nearest < tree.n
    # From whole offsets, because coordinates in mm have lost the last bits that decide a tie with the tolerance.
    offsets_mm = (query_N3[reached] - target.indices_N3(nearest[reached])) * spacing_mm_xyz
    found = np.full(len(query_N3), np.inf)
    found[reached] = np.sqrt((offsets_mm * offsets_mm).sum(axis=1))
    return found


def _positions(mask_XYZ: np.ndarray) -> np.ndarray:
    """Return the flat positions of a mask in the smallest whole numbers that hold them."""
    return np.flatnonzero(mask_XYZ).astype(np.min_scalar_type(mask_XYZ.size))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + POINTS_AT_ONCE) for start in range(0, count, POINTS_AT_ONCE))
