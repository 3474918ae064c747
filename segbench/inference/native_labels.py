"""Label maps on the native grid from probabilities that arrive slab by slab on the preprocessed grid.

Axis legend: K class, Z Y X space. Probabilities are interpolated linearly over the same field of view (voxel edges
aligned, edge values continued), as `segbench.data.resampling.zoom` does with order 1 and PyTorch's `interpolate` with
`align_corners=False`; then the largest class is taken. A native plane is made as soon as its two neighbours are there,
so that nothing larger than a slab is held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Triple = tuple[int, int, int]
CHUNK_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Size of one class of the native planes that are made at a time; a few of them fit the cache of a processor."""


@dataclass(frozen=True)
class Neighbours:
    """For each voxel of a new line, the two old voxels between which its centre lies and the weight of the second."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, old: int, new: int) -> Neighbours:
        """Return the neighbours of a line of `old` voxels that gets `new` voxels over the same field of view."""
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(np.int64)
        return cls(low, np.ceil(position).astype(np.int64), (position - low).astype(np.float32))

    def part(self, start: int, stop: int) -> Neighbours:
        """Return those of some of the new voxels."""
        return Neighbours(self.low[start:stop], self.high[start:stop], self.weight[start:stop])

    def shifted(self, origin: int) -> Neighbours:
        """Return the same neighbours counted from another old voxel."""
        return Neighbours(self.low - origin, self.high - origin, self.weight)


class NativeLabels:
    """Fills labels_ZYX (uint8) on the native grid; of equal classes the first wins."""

    def __init__(self, shape_zyx: Triple, labels_ZYX: np.ndarray, rows: tuple[int, int]):
        """Set up an empty label map.

        Args:
            shape_zyx: the preprocessed grid.
            labels_ZYX: where labels are written; its shape is the native grid.
            rows: first and last native row (exclusive) along y that this object fills.
        """
        self._labels_ZYX = labels_ZYX
        self._rows = rows
        self._size_zyx = shape_zyx
        native_zyx = labels_ZYX.shape
        along = [Neighbours.of(old, new) for old, new in zip(shape_zyx, native_zyx, strict=True)]
        self._same = [old == new for old, new in zip(shape_zyx, native_zyx, strict=True)]
        self._z, self._x = along[0], along[2]
        y = along[1].part(*rows)
        self.grid_rows = int(y.low[0]), int(y.high[-1]) + 1
        self._y = y.shifted(self.grid_rows[0])
        self._before: Tensor | None = None
        self._done = 0

    def add(self, start: int, probabilities_KZYX: Tensor) -> None:
        """Take the next planes of the preprocessed grid, whose rows are `grid_rows`, and make what they complete.

        Args:
            start: number of the first plane; slabs come in order and without gaps.
            probabilities_KZYX: float32, on any device; not kept and not changed.
        """
        stop = start + probabilities_KZYX.shape[1]
        ready = int(np.searchsorted(self._z.high, stop))
        first_inside = int(np.searchsorted(self._z.low, start))
        between = min(max(first_inside, self._done), ready)
        if self._done < between:  # the lower neighbour is the last plane of the slab before
            assert self._before is not None
            pair_KZYX = torch.cat([self._before, probabilities_KZYX[:, :1]], dim=1)
            self._make(pair_KZYX, start - 1, self._done, between)
        self._make(probabilities_KZYX, start, between, ready)
        self._done = ready
        if not self._same[0]:
            self._before = probabilities_KZYX[:, -1:].clone()

    def _make(self, probabilities_KZYX: Tensor, start: int, first: int, last: int) -> None:
        device = probabilities_KZYX.device
        plane_bytes = 4 * (self._rows[1] - self._rows[0]) * self._labels_ZYX.shape[2]
        chunk = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // plane_bytes)
        for begin in range(first, last, chunk):
            end = min(begin + chunk, last)
            best_ZYX, labels_ZYX = torch.empty(0), torch.empty(0)
            for value, class_ZYX in enumerate(probabilities_KZYX):
                native_ZYX = self._interpolated(class_ZYX, start, begin, end)
                if value == 0:
                    best_ZYX = native_ZYX.clone()
                    labels_ZYX = torch.zeros(native_ZYX.shape, dtype=torch.uint8, device=device)
                else:
                    labels_ZYX.masked_fill_(native_ZYX > best_ZYX, value)
                    torch.maximum(best_ZYX, native_ZYX, out=best_ZYX)
            self._labels_ZYX[begin:end, slice(*self._rows)] = labels_ZYX.cpu().numpy()

    def _interpolated(self, class_ZYX: Tensor, start: int, begin: int, end: int) -> Tensor:
        """Return one class on some native planes; without a change of the grid it is a view."""
        if self._same[0]:
            class_ZYX = class_ZYX[begin - start : end - start]
        else:
            class_ZYX = _along(class_ZYX, 0, self._z.part(begin, end).shifted(start))
        if not self._same[1]:
            class_ZYX = _along(class_ZYX, 1, self._y)
        return class_ZYX if self._same[2] else _along(class_ZYX, 2, self._x)


def _along(class_ZYX: Tensor, axis: int, neighbours: Neighbours) -> Tensor:
    """Interpolate along one axis."""
    device = class_ZYX.device
    low, high, weight = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device)
        for part in (neighbours.low, neighbours.high, neighbours.weight)
    )
    if axis < 2:
        weight = weight.view(-1, *[1] * (2 - axis))
        return class_ZYX.index_select(axis, low).lerp_(class_ZYX.index_select(axis, high), weight)
    shape = (*class_ZYX.shape[:2], len(low))  # `gather` is several times faster than `index_select` along x
    return class_ZYX.gather(2, low.expand(shape)).lerp_(class_ZYX.gather(2, high.expand(shape)), weight)
