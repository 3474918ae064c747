"""Geometry and rendering shared by the phantoms: voxel grids, warps, implicit shapes, tissues, scanner effects.

All positions are in millimetres in the patient's frame, x to the right, y to the front, z to the head (RAS+), and
shapes are functions of position: nothing here knows a voxel grid before it is sampled. Arrays named `_XYZ` follow the
axes of the file, whatever its orientation; `points_XYZ3` holds one position per voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import orientations
from scipy import ndimage

ORIENTATIONS = ("RAS", "LPS", "LAS", "RPI", "PIR", "ASL", "SRA", "IPL")


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the patient's frame; affine maps voxel indices to millimetres (RAS+)."""

    shape_xyz: tuple[int, int, int]
    affine: np.ndarray

    def points(self) -> np.ndarray:
        """Return the position of every voxel centre, shape (X, Y, Z, 3), in millimetres."""
        indices = np.stack(np.meshgrid(*map(np.arange, self.shape_xyz), indexing="ij"), axis=-1)
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]


def random_grid(
    rng: np.random.Generator,
    *,
    centre_mm: Sequence[float],
    extent_mm: Sequence[float],
    in_plane_mm: tuple[float, float],
    slice_mm: tuple[float, float],
    tilt_degrees: float = 0.0,
) -> Grid:
    """Return a grid over a box in the patient's frame, with axes in a random order and direction.

    extent_mm: size along right, front, head, varied by 8 %. in_plane_mm, slice_mm: ranges that the spacing is drawn
    from, rounded to 0.1 mm. tilt_degrees: largest rotation about the right-left axis, as of a tilted gantry or stack.
    """
    plane, between = (round(float(rng.uniform(*limits)), 1) for limits in (in_plane_mm, slice_mm))
    spacing = np.array([plane, plane, between])
    extent = np.asarray(extent_mm) * rng.uniform(0.92, 1.08, size=3)
    shape = np.maximum(np.round(extent / spacing).astype(int), 8)
    angle = np.deg2rad(rng.uniform(-tilt_degrees, tilt_degrees))
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = np.asarray(centre_mm) - affine[:3, :3] @ ((shape - 1) / 2)
    codes = ORIENTATIONS[rng.integers(len(ORIENTATIONS))]
    turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(tuple(codes)))
    turned = np.empty(3, int)
    turned[turn[:, 0].astype(int)] = shape
    return Grid(tuple(int(n) for n in turned), affine @ orientations.inv_ornt_aff(turn, tuple(shape)))


def warp(points_XYZ3: np.ndarray, rng: np.random.Generator, *, amplitude_mm: float, wavelength_mm: float) -> np.ndarray:
    """Return the positions moved by a smooth random displacement: six plane waves, of about the given amplitude."""
    moved = points_XYZ3.copy()
    for _ in range(6):
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / (wavelength_mm * rng.uniform(0.7, 1.6))
        phase = np.sin(points_XYZ3 @ wave + rng.uniform(0, 2 * np.pi))
        moved += phase[..., None] * rng.normal(size=3) * amplitude_mm / np.sqrt(3)
    return moved


def rotation_about(axis: int, degrees: float) -> np.ndarray:
    """Return the 3 x 3 rotation about axis 0, 1 or 2."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    first, second = [(1, 2), (0, 2), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def ellipsoid(
    points_XYZ3: np.ndarray,
    centre_mm: Sequence[float],
    radii_mm: Sequence[float],
    *,
    exponent: float = 2.0,
    rotation: np.ndarray | None = None,
) -> np.ndarray:
    """Return the level of a superellipsoid: 0 at its centre, 1 on its surface, more outside.

    An infinite radius makes a cylinder along that axis.
    """
    offset = points_XYZ3 - np.asarray(centre_mm)
    if rotation is not None:
        offset = offset @ rotation
    offset = offset / np.asarray(radii_mm)
    if exponent == 2:
        return np.sqrt(np.einsum("...i,...i", offset, offset))
    x, y, z = np.moveaxis(np.abs(offset) ** exponent, -1, 0)
    return (x + y + z) ** (1 / exponent)


def tube(points_XYZ3: np.ndarray, line_mm: Sequence[Sequence[float]], radius_mm: float | Sequence[float]) -> np.ndarray:
    """Return the level of a tube round a polyline: 0 on the line, 1 on the surface; one radius or one per corner."""
    corners = np.asarray(line_mm, float)
    radii = np.broadcast_to(np.asarray(radius_mm, float), len(corners))
    squares = np.einsum("...i,...i", points_XYZ3, points_XYZ3)
    level = np.full(points_XYZ3.shape[:-1], np.inf)
    for start, stop, radius, radius_end in zip(corners[:-1], corners[1:], radii[:-1], radii[1:], strict=True):
        along = stop - start
        length = along @ along
        projection = points_XYZ3 @ along - start @ along
        fraction = np.clip(projection / length, 0, 1)
        # |p - start - fraction * along|^2, expanded so that no array of offsets is needed
        distance = squares - 2 * (points_XYZ3 @ start) + start @ start + fraction * (fraction * length - 2 * projection)
        level = np.minimum(level, np.sqrt(np.maximum(distance, 0)) / (radius + fraction * (radius_end - radius)))
    return level


def lump(points_XYZ3: np.ndarray, centre_mm: Sequence[float], radius_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Return the level of an irregular ball: an ellipsoid whose surface bulges by up to about a quarter."""
    offset = (points_XYZ3 - np.asarray(centre_mm)) / (radius_mm * rng.uniform(0.85, 1.2, size=3))
    level = np.sqrt(np.einsum("...i,...i", offset, offset))
    bulge = sum(np.sin(offset @ rng.normal(scale=1.6, size=3) + rng.uniform(0, 2 * np.pi)) for _ in range(3))
    return level * (1 + 0.09 * bulge)


class Tissues:
    """A label map over tissue names, painted one shape over the other; what is painted last stays."""

    def __init__(self, points_XYZ3: np.ndarray):
        self.points_XYZ3 = points_XYZ3
        self.map_XYZ = np.zeros(points_XYZ3.shape[:-1], np.uint8)
        self.names = ["outside"]

    def paint(self, name: str, inside_XYZ: np.ndarray, *, over: Sequence[str] | None = None) -> None:
        """Give the voxels inside a name; `over` limits that to voxels that carry one of these names."""
        if name not in self.names:
            self.names.append(name)
        chosen = inside_XYZ if over is None else inside_XYZ & self.mask(*over)
        self.map_XYZ[chosen] = self.names.index(name)

    def mask(self, *names: str) -> np.ndarray:
        """Return where any of the names is; a name that was never painted is nowhere."""
        return np.array([name in names for name in self.names])[self.map_XYZ]

    def values(self, table: dict[str, float]) -> np.ndarray:
        """Return the table's value for every voxel; a tissue that the table lacks is a `KeyError`."""
        return np.array([table[name] for name in self.names], float)[self.map_XYZ]


def place_lumps(
    tissues: Tissues,
    name: str,
    rng: np.random.Generator,
    *,
    host: Sequence[str],
    over: Sequence[str],
    count: int,
    radius_mm: tuple[float, float],
) -> None:
    """Paint `count` lumps whose centres lie well inside the host tissue and which replace the `over` tissues only.

    Nothing is painted where the grid shows no host tissue at all.
    """
    inside = tissues.mask(*host)
    core = ndimage.binary_erosion(inside)
    candidates = np.argwhere(core if core.any() else inside)
    for _ in range(count if len(candidates) else 0):
        centre = tissues.points_XYZ3[tuple(candidates[rng.integers(len(candidates))])]
        level = lump(tissues.points_XYZ3, centre, rng.uniform(*radius_mm), rng)
        tissues.paint(name, level < 1, over=over)


def septa(points_XYZ3: np.ndarray, rng: np.random.Generator, *, wavelength_mm: float) -> np.ndarray:
    """Return a three-dimensional chequer between -1 and 1 in a random direction: the texture inside of tumours."""
    turn = rotation_about(2, rng.uniform(0, 90)) @ rotation_about(0, rng.uniform(0, 90))
    waves = np.sin(points_XYZ3 @ turn * 2 * np.pi / wavelength_mm + rng.uniform(0, 2 * np.pi, size=3))
    return np.clip(3 * waves[..., 0] * waves[..., 1] * waves[..., 2], -1, 1)


def smooth_noise(shape_xyz: Sequence[int], rng: np.random.Generator, *, sigma_voxels: float) -> np.ndarray:
    """Return noise of mean 0 and standard deviation 1, correlated over about `sigma_voxels`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(tuple(shape_xyz)), sigma_voxels, mode="wrap")
    return noise / noise.std()


def bias_field(points_XYZ3: np.ndarray, rng: np.random.Generator, *, strength: float) -> np.ndarray:
    """Return a slowly varying gain with mean about 1: exp of two long waves, each of the given strength."""
    exponent = np.zeros(points_XYZ3.shape[:-1])
    for _ in range(2):
        direction = rng.normal(size=3)
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / rng.uniform(250, 450)
        exponent += strength * np.sin(points_XYZ3 @ wave + rng.uniform(0, 2 * np.pi))
    return np.exp(exponent)


def acquire(
    signal_XYZ: np.ndarray, rng: np.random.Generator, *, blur_voxels: float, noise: float, rician: bool
) -> np.ndarray:
    """Return the signal as a scanner shows it: blurred (partial volume), then noisy.

    noise: standard deviation in the signal's unit, slightly correlated; Rician (magnitude of a complex signal) as in
    MR, else Gaussian as in CT.
    """
    blurred = ndimage.gaussian_filter(signal_XYZ, blur_voxels)
    real = blurred + noise * smooth_noise(blurred.shape, rng, sigma_voxels=0.5)
    if not rician:
        return real
    return np.hypot(real, noise * smooth_noise(blurred.shape, rng, sigma_voxels=0.5))
