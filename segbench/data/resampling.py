"""Arithmetic of preprocessing: resampling of images and labels, normalisation, the box to crop to.

Axis legend: C channel, X Y Z native, Z Y X preprocessed. The order of the steps is in `segbench.data.geometry`.

Resampling keeps the field of view (voxel edges aligned, edge values continued). An interpolating spline on a grid of
other spacing is a linear map along one axis after the other, so each axis is one matrix product; the matrices are
`scipy.ndimage.zoom` of the unit vectors, and the result is that of `zoom` up to float32 rounding at a fraction of its
time. Labels and anisotropic volumes have rules of their own: `resample_labels`, `coarse_axis`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

from segbench.data.preprocessing_recipes import PreprocessingRecipe


def new_shape_zyx(
    shape_zyx: Sequence[int], spacing_mm_zyx: Sequence[float], target_mm_zyx: Sequence[float]
) -> tuple[int, int, int]:
    """Return the voxels that cover the same field of view at another spacing, at least one along each axis."""
    parts = zip(shape_zyx, spacing_mm_zyx, target_mm_zyx, strict=True)
    z, y, x = (max(1, round(size * old / new)) for size, old, new in parts)
    return z, y, x


def coarse_axis(native_mm_zyx: Sequence[float], target_mm_zyx: Sequence[float], *, anisotropy: float) -> int | None:
    """Return the axis that is resampled with order 0 apart from the others, or None; the rule of nnU-Net v2.

    It is the axis of the largest spacing where that is more than `anisotropy` times the smallest, in the native
    spacing or else in the target; two equally coarse axes are not kept apart.
    """
    for spacing_mm in (native_mm_zyx, target_mm_zyx):
        if max(spacing_mm) / min(spacing_mm) > anisotropy:
            largest = np.flatnonzero(np.isclose(spacing_mm, max(spacing_mm), rtol=1e-6))
            return int(largest[0]) if len(largest) == 1 else None
    return None


def resample(
    image_ZYX: np.ndarray, shape_zyx: Sequence[int], *, order: int, coarse_axis: int | None = None
) -> np.ndarray:
    """Return the image on another grid over the same field of view, float32; `coarse_axis` with order 0."""
    orders = [0 if axis == coarse_axis else order for axis in range(3)]
    return zoom(np.array(image_ZYX, dtype=np.float32, order="C"), shape_zyx, orders)


def resample_labels(labels_ZYX: np.ndarray, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return labels on another grid over the same field of view (uint8).

    Along axes that get finer by nearest neighbour, which loses nothing; along axes that get coarser each class
    linearly, and the largest fraction wins.
    """
    finer = [max(new, old) for new, old in zip(shape_zyx, labels_ZYX.shape, strict=True)]
    return largest_fraction(nearest(labels_ZYX, finer), shape_zyx)


def nearest(labels_ZYX: np.ndarray, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return labels on another grid, each voxel that of the old voxel in which its centre lies (uint8)."""
    indices = [_inside_of(old, new) for old, new in zip(labels_ZYX.shape, shape_zyx, strict=True)]
    return labels_ZYX[np.ix_(*indices)].astype(np.uint8)


def largest_fraction(labels_ZYX: np.ndarray, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return labels on another grid, each class resampled linearly and the largest fraction winning (uint8)."""
    if tuple(shape_zyx) == labels_ZYX.shape:
        return labels_ZYX.astype(np.uint8)
    best = np.full(tuple(shape_zyx), -1.0, dtype=np.float32)
    result = np.zeros(tuple(shape_zyx), dtype=np.uint8)
    for value in np.unique(labels_ZYX):
        fraction = zoom((labels_ZYX == value).astype(np.float32), shape_zyx, (1, 1, 1))
        closer = fraction > best
        result[closer], best[closer] = value, fraction[closer]
    return result


def zoom(image_ZYX: np.ndarray, shape_zyx: Sequence[int], orders: Sequence[int]) -> np.ndarray:
    """Return a float32 image on another grid with a spline order per axis; without a change, the image itself.

    Equal to `ndimage.zoom(..., mode="nearest", grid_mode=True)` up to rounding. Axes that shrink most go first, as
    that leaves the least to do for the others.
    """
    for axis in sorted(range(3), key=lambda axis: shape_zyx[axis] / image_ZYX.shape[axis]):
        old, new = image_ZYX.shape[axis], int(shape_zyx[axis])
        if old == new:
            continue
        if orders[axis] == 0:
            image_ZYX = image_ZYX.take(_inside_of(old, new), axis=axis)
        else:
            image_ZYX = _along(axis, _spline_matrix(old, new, orders[axis]), image_ZYX)
    return image_ZYX


def _inside_of(old: int, new: int) -> np.ndarray:
    """Return, for each new voxel, the old voxel in which its centre lies."""
    return ((np.arange(new) + 0.5) * old / new).astype(int)


@lru_cache(maxsize=64)
def _spline_matrix(old: int, new: int, order: int) -> np.ndarray:
    """Return the float32 matrix (new, old) that resamples a line of `old` voxels to `new`."""
    units = np.eye(old)
    lines = [ndimage.zoom(unit, new / old, order=order, mode="nearest", grid_mode=True) for unit in units]
    return np.ascontiguousarray(np.stack(lines, axis=1), dtype=np.float32)


def _along(axis: int, matrix: np.ndarray, image_ZYX: np.ndarray) -> np.ndarray:
    """Multiply every line of an axis by a matrix."""
    shape = list(image_ZYX.shape)
    shape[axis] = len(matrix)
    if axis == 2:
        return (image_ZYX.reshape(-1, image_ZYX.shape[2]) @ matrix.T).reshape(shape)
    inner = int(np.prod(image_ZYX.shape[axis + 1 :]))
    return np.matmul(matrix, image_ZYX.reshape(-1, image_ZYX.shape[axis], inner)).reshape(shape)


def normalise(
    images_CZYX: np.ndarray, modalities: Sequence[str], recipe: PreprocessingRecipe, nonzero_ZYX: np.ndarray | None
) -> None:
    """Normalise in place, channel by channel; a constant channel becomes zero.

    CT is clipped to the recipe's window and scaled to 0..1; without a window it is clipped to the percentiles of the
    training foreground and gets a z-score by its mean and deviation. Other modalities get a z-score over all voxels of
    the case.

    Args:
        images_CZYX: the case on its preprocessed grid.
        modalities: of the channels.
        recipe: with `training` where it needs that.
        nonzero_ZYX: voxels inside the non-zero mask, whose z-scores those of channels other than CT are, with zero
            outside; None for all voxels.
    """
    for channel, (image_ZYX, modality) in enumerate(zip(images_CZYX, modalities, strict=True)):
        if modality != "CT":
            inside = image_ZYX if nonzero_ZYX is None or not nonzero_ZYX.any() else image_ZYX[nonzero_ZYX]
            _shift_and_scale(image_ZYX, inside.mean(), inside.std())
            if nonzero_ZYX is not None:
                image_ZYX[~nonzero_ZYX] = 0
        elif recipe.clip_hu is not None:
            low, high = recipe.clip_hu
            np.clip(image_ZYX, low, high, out=image_ZYX)
            _shift_and_scale(image_ZYX, low, high - low)
        else:
            assert recipe.training is not None, "the recipe needs the intensities of the training cases"
            measured = recipe.training.foreground[channel]
            assert measured is not None
            low, high, mean, deviation = measured
            np.clip(image_ZYX, low, high, out=image_ZYX)
            _shift_and_scale(image_ZYX, mean, deviation)


def _shift_and_scale(image_ZYX: np.ndarray, shift: float, scale: float) -> None:
    image_ZYX -= np.float32(shift)
    image_ZYX /= np.float32(max(float(scale), 1e-8))


def nonzero_mask(images_CZYX: np.ndarray) -> np.ndarray:
    """Return the voxels that are non-zero in any channel, and the holes inside them, as nnU-Net's mask."""
    return ndimage.binary_fill_holes(images_CZYX.any(axis=0))


def nonzero_box(images_CXYZ: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the box of voxels that are non-zero in any channel; the whole volume when all are zero."""
    mask = np.asarray(images_CXYZ.any(axis=0))
    box = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, mask.shape[axis]))
    x, y, z = box
    return x, y, z
