"""Views of a patch for self-supervised objectives. Axis legend: B batch, C channel, Z Y X space.

All randomness comes from a numpy generator, so that a view is the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.blocks.placement import on_device

Triple = tuple[int, int, int]
CURVE_POINTS = 256


def intensity_curve(image_CZYX: Tensor, rng: np.random.Generator, *, may_fall: bool = False) -> Tensor:
    """Return the image after a random monotone curve of its intensities, one curve for all channels.

    The curve is a cubic Bezier from (0, 0) to (1, 1) with two control points in the unit square, applied between the
    minimum and the maximum of each channel, which it keeps. may_fall: in half of the cases bright and dark are swapped.
    A constant channel stays as it is.
    """
    t = np.linspace(0, 1, CURVE_POINTS)[:, None]
    one, two = rng.random(2), rng.random(2)
    points = 3 * (1 - t) ** 2 * t * one + 3 * (1 - t) * t**2 * two + t**3
    x, y = np.sort(points[:, 0]), np.sort(points[:, 1])
    table = np.interp(np.linspace(0, 1, CURVE_POINTS), x, y)
    if may_fall and rng.random() < 0.5:
        table = 1 - table
    table = on_device(torch.as_tensor(table), image_CZYX.device, dtype=image_CZYX.dtype)
    low, high = image_CZYX.amin((1, 2, 3), keepdim=True), image_CZYX.amax((1, 2, 3), keepdim=True)
    span = torch.where(high > low, high - low, 1)
    place = (image_CZYX - low) / span * (CURVE_POINTS - 1)
    below = place.floor().clamp(0, CURVE_POINTS - 2).long()
    curved = low + span * torch.lerp(table[below], table[below + 1], place - below)
    return torch.where(high > low, curved, image_CZYX)


def random_start(shape_zyx: Sequence[int], size_zyx: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Return the first voxel z,y,x of a window that lies anywhere inside."""
    return [int(rng.integers(full - size + 1)) for full, size in zip(shape_zyx, size_zyx, strict=True)]


def window(start_zyx: Sequence[int], size_zyx: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of a window behind the channel axis."""
    return (slice(None), *(slice(first, first + size) for first, size in zip(start_zyx, size_zyx, strict=True)))
