"""Area of the surface that passes between eight neighbouring voxels, by marching cubes.

The eight voxels around a corner of the grid, in or out, make a code of 0 to 255: the voxel at offset (dx, dy, dz)
counts 128 >> (4 dx + 2 dy + dz). The surface within the cell that they span is a few triangles, and their normals give
its area for any spacing. The normals are those of the surface-distance package (Copyright 2018 Google Inc.,
Apache-2.0), so that areas agree with it; only their sizes matter and a code has the area of its complement, so that 26
sets remain.
"""

from __future__ import annotations

import numpy as np

_NORMALS_IN_EIGHTHS = {
    "111": (1, 2, 4, 8, 16, 32, 64, 127),
    "220 220": (3, 12, 48, 63),
    "202 202": (5, 10, 80, 95),
    "111 111": (6, 9, 18, 20, 24, 33, 36, 40, 65, 66, 72, 96, 111, 123, 125, 126),
    "111 222 400": (7, 11, 13, 14, 31, 47, 79, 112),
    "400 400": (15,),
    "022 022": (17, 34, 68, 119),
    "040 111 222": (19, 35, 49, 50, 55, 59, 76, 115),
    "004 111 222": (21, 42, 69, 81, 84, 87, 93, 117),
    "111 111 111": (22, 41, 73, 97, 104, 107, 109, 121),
    "111 111 222 222": (23, 43, 77, 113),
    "022 022 111": (25, 38, 70, 98, 100, 103, 110, 118),
    "111 202 202": (26, 37, 74, 82, 88, 91, 94, 122),
    "022 111 202 333": (27, 39, 78, 114),
    "111 220 220": (28, 44, 52, 56, 61, 62, 67, 124),
    "022 111 220 333": (29, 46, 71, 116),
    "111 111 222 400": (30, 45, 75, 120),
    "040 040": (51,),
    "111 202 220 333": (53, 58, 83, 92),
    "040 111 111 222": (54, 57, 99, 108),
    "220 220 220 220": (60,),
    "004 004": (85,),
    "004 111 111 222": (86, 89, 101, 106),
    "202 202 202 202": (90,),
    "022 022 022 022": (102,),
    "111 111 111 111": (105,),
}
"""Triangles of a set, one per word with the sizes of its normal along x, y and z in eighths -> codes below 128."""


def surfel_areas(spacing_mm_xyz: tuple[float, float, float]) -> np.ndarray:
    """Return the surface area in mm2 for each of the 256 codes; 0 for the codes without surface."""
    x, y, z = spacing_mm_xyz
    scale = np.array([y * z, x * z, x * y]) / 8
    areas = np.zeros(256)
    for words, codes in _NORMALS_IN_EIGHTHS.items():
        triangles = np.array([[int(size) for size in word] for word in words.split()])
        areas[list(codes)] = np.linalg.norm(triangles * scale, axis=1).sum()
    return np.maximum(areas, areas[::-1])
