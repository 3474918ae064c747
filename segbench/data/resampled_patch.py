"""A patch of a volume that is rotated and scaled: one pass over the image, one over the labels.

Images are interpolated linearly, zero outside the volume. A voxel gets the label of the largest linear weight, as
batchgeneratorsv2 gives it, which interpolates every class alone; here the eight neighbours of a voxel are compared, and
only where they differ. Axis legend: C channel, Z Y X space, N voxels, K corners.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Triple = tuple[int, int, int]
MARGIN = 2
MIXED = 253  # a cell whose corners have different labels; no class has this value
CORNERS = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]


def source_box(
    start_zyx: Sequence[int], size_zyx: Sequence[int], affine: np.ndarray, shape_zyx: Sequence[int]
) -> list[slice]:
    """Return the box of voxels of a volume that a transformed patch needs, cut to the volume.

    Args:
        start_zyx: first voxel of the patch before the transform.
        size_zyx: its size.
        affine: 3x3 matrix from offsets in the patch to offsets in the volume, about the centre of the patch.
        shape_zyx: size of the volume.
    """
    half = (np.asarray(size_zyx) - 1) / 2
    centre, reach = np.asarray(start_zyx) + half, np.abs(affine) @ half
    first = np.clip(np.floor(centre - reach), 0, np.asarray(shape_zyx) - 1).astype(int)
    last = np.clip(np.ceil(centre + reach), first, np.asarray(shape_zyx) - 1).astype(int)
    return [slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]


def coordinates(size_zyx: Sequence[int], affine: np.ndarray, centre_zyx: Sequence[float]) -> list[Tensor]:
    """Return z, y and x, each on the grid of a patch, of its voxels in the volume."""
    steps = [torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in size_zyx]
    lines = [steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]]
    found = []
    for row, centre in zip(affine.tolist(), centre_zyx, strict=True):
        total = lines[0] * row[0] + float(centre) + lines[1] * row[1]
        found.append(total + lines[2] * row[2])
    return found


def interpolated(images_CZYX: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Return images at places in voxels (float32); the volume ends with zeros."""
    grid = torch.empty((*places[0].shape, 3))
    for axis, (place, size) in enumerate(zip(places, images_CZYX.shape[1:], strict=True)):
        torch.add(place * (2 / size), 1 / size - 1, out=grid[..., 2 - axis])
    return functional.grid_sample(images_CZYX[None], grid[None], align_corners=False)[0]


def interpolated_labels(labels_ZYX: Tensor, places: Sequence[Tensor], *, outside: int) -> Tensor:
    """Return labels (uint8) at places in voxels; the volume ends with `outside`. Of equal weights the nearest wins."""
    padded = functional.pad(labels_ZYX, [MARGIN] * 6, value=outside)
    lowest, highest = padded, padded
    for axis in range(3):
        length = padded.shape[axis] - 1
        lowest = torch.minimum(lowest.narrow(axis, 0, length), lowest.narrow(axis, 1, length))
        highest = torch.maximum(highest.narrow(axis, 0, length), highest.narrow(axis, 1, length))
    cells = torch.where(lowest == highest, lowest, MIXED)
    if not (cells == MIXED).any():
        return torch.full(places[0].shape, int(padded.flatten()[0]), dtype=torch.uint8)
    index = torch.zeros(places[0].shape, dtype=torch.int64)
    inside = []
    for place, size in zip(places, cells.shape, strict=True):
        inside.append((place + MARGIN).clamp_(0, size))
        index.mul_(size).add_(inside[-1].to(torch.int64).clamp_(max=size - 1))
    found = cells.flatten()[index]
    chosen = (found == MIXED).flatten().nonzero()[:, 0]
    found.view(-1)[chosen] = _voted(padded, [place.flatten()[chosen] for place in inside])
    return found


def _voted(labels_ZYX: Tensor, places_N: Sequence[Tensor]) -> Tensor:
    """Return the label of the largest weight among the eight voxels around each place."""
    base = [place.to(torch.int64).clamp_(max=size - 2) for place, size in zip(places_N, labels_ZYX.shape, strict=True)]
    parts = [place - first for place, first in zip(places_N, base, strict=True)]
    _, height, width = labels_ZYX.shape
    flat = labels_ZYX.flatten()
    labels_KN, weights_KN = [], []
    for corner in CORNERS:
        z, y, x = (first + step for first, step in zip(base, corner, strict=True))
        labels_KN.append(flat[(z * height + y) * width + x])
        sides = [part if step else 1 - part for part, step in zip(parts, corner, strict=True)]
        weights_KN.append(sides[0] * sides[1] * sides[2])
    around, weights = torch.stack(labels_KN), torch.stack(weights_KN)
    nearest = sum((part > 0.5).long() * step for part, step in zip(parts, (4, 2, 1), strict=True))
    best_label = around.gather(0, nearest[None])[0]  # type: ignore[index]
    best = (weights * (around == best_label)).sum(0)
    for label in around:
        weight = (weights * (around == label)).sum(0)
        closer = weight > best + 1e-6
        best_label, best = torch.where(closer, label, best_label), torch.where(closer, weight, best)
    return best_label
