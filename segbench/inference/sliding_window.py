"""Sliding windows that stream: label maps without ever holding the probabilities of a whole volume.

Axis legend: B batch, C channel, K class, Z Y X space. Windows go along x, then y, then z. Once no further window
reaches a plane, its weighted sum is divided by the sum of the weights, and the plane is handed on; only as many planes
as a window has are held, and of very large planes only some rows at a time. The windows, their order and the Gaussian
weights are those of MONAI's `sliding_window_inference`.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from models.blocks.placement import on_device
from models.blocks.plain_unet import BatchStatisticsNorm
from models.interface import SegmentationModel
from segbench.core.errors import RunFailed
from segbench.core.task import Task
from segbench.data.geometry import Geometry
from segbench.inference.native_labels import NativeLabels
from segbench.inference.precision import autocast, choose, memory_format

Triple = tuple[int, int, int]
Result = TypeVar("Result")
SIGMA = 0.125
"""Standard deviation of the Gaussian weights as a fraction of the window."""
LEAST_WEIGHT = 1e-3
ACCUMULATOR_BYTES = 1 << 31
"""Largest accumulator on a processor; planes that need more are predicted some rows at a time."""
MOST_PARTS = 3
"""Parts of rows in which a GPU predicts a volume at most: each predicts the windows at its edges once more. A processor
keeps the sums of a volume that would take more."""
BATCH = {"cpu": 2, "cuda": 8}
BATCH_BYTES = 1 << 30
"""Largest output of a batch."""
PIECE_BYTES = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Size of the probabilities that are computed and added at a time; they fit the cache of a processor."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Windows:
    """How a volume is predicted.

    Attributes:
        patch_size_zyx: size of a window in voxels.
        step: distance of windows as a fraction of the patch.
        mirror_axes: z, y, x = 0, 1, 2; every combination of flips is predicted and the probabilities are averaged.
        precision: 'auto', 'float32', 'bfloat16' or 'float16', see `segbench.inference.precision.choose`.
    """

    patch_size_zyx: Triple
    step: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    precision: str = "float32"


class Slab(NamedTuple):
    """Complete planes: number of the first, and probabilities_KZYX (float32) per task, valid until the next slab."""

    start: int
    probabilities_KZYX: list[Tensor]


class NotFinite(RunFailed):
    """A network's probabilities are not numbers."""


def predict_probabilities(
    model: SegmentationModel, images_CZYX: np.ndarray, tasks: Sequence[Task], windows: Windows
) -> dict[str, np.ndarray]:
    """Return task name -> probabilities_KZYX (float32), the mean over flips; tasks share one encoding of every window.

    Every class of the whole volume is in memory; `predict_labels` needs a slab.

    Raises:
        NotFinite: see `slabs`.
    """
    found = [np.empty((task.num_classes, *images_CZYX.shape[1:]), dtype=np.float32) for task in tasks]
    for start, slab in slabs(model, images_CZYX, tasks, windows):
        for whole_KZYX, part_KZYX in zip(found, slab, strict=True):
            whole_KZYX[:, start : start + part_KZYX.shape[1]] = part_KZYX.cpu().numpy()
    return {task.name: whole_KZYX for task, whole_KZYX in zip(tasks, found, strict=True)}


def predict_labels(
    model: SegmentationModel, images_CZYX: np.ndarray, tasks: Sequence[Task], geometry: Geometry, windows: Windows
) -> dict[str, np.ndarray]:
    """Return task name -> labels_XYZ (uint8) on the native grid: the class of the largest interpolated probability.

    Outside the crop is background; of equal classes the first wins. Memory is bounded by a slab, whatever the number of
    classes. When the memory of a device is used up, sums are kept in the memory of the processor; where a probability
    is not finite in a lower precision, the volume is predicted again in float32. Both are logged.

    Args:
        model: the network, in evaluation mode, on its device.
        images_CZYX: a preprocessed image, float32.
        tasks: tasks of the network with the image's channels; they share one encoding of every window.
        geometry: the way back to the native grid.
        windows: how the volume is predicted.

    Returns:
        Task name -> labels_XYZ.

    Raises:
        InputError: the network has no such task, or the channels are not the task's.
        NotFinite: a probability is not finite in float32 either.
    """

    def labels(windows: Windows) -> dict[str, np.ndarray]:
        return _labels_where_they_fit(model, images_CZYX, tasks, geometry, windows)

    return finite(labels, windows, next(model.parameters()).device)


def finite(predict: Callable[[Windows], Result], windows: Windows, device: torch.device) -> Result:
    """Return what a prediction by windows gives, in float32 where it is not finite in a lower precision.

    Raises:
        NotFinite: it is not in float32 either.
    """
    precision = choose(device, windows.precision)
    try:
        return predict(windows)
    except NotFinite:
        if precision == "float32":
            raise
        log.warning("probabilities are not finite in %s: the volume is predicted again in float32", precision)
    return predict(replace(windows, precision="float32"))


def _labels_where_they_fit(
    model: SegmentationModel, images_CZYX: np.ndarray, tasks: Sequence[Task], geometry: Geometry, windows: Windows
) -> dict[str, np.ndarray]:
    attempts = _attempts(next(model.parameters()).device)
    for number, (device, batch) in enumerate(attempts):
        rows = _row_parts(tasks, geometry.shape_zyx, geometry.cropped_shape_zyx[1], windows.patch_size_zyx, device)
        if device.type != "cpu" and len(rows) > MOST_PARTS:
            log.info("sums of %d parts would not fit %s: they are kept in the processor's memory", len(rows), device)
            continue
        try:
            return _labels(model, images_CZYX, tasks, geometry, windows, rows, device, batch)
        except torch.OutOfMemoryError:
            if number + 1 == len(attempts):
                raise
            log.warning("the memory of %s is used up: sums are kept in the processor's memory", device)
        torch.cuda.empty_cache()  # outside the handler, which keeps the failed attempt's tensors alive
    raise AssertionError("an attempt returns or raises")


def _attempts(device: torch.device) -> list[tuple[torch.device, int]]:
    """Return where sums are kept and how many windows a batch has, from the best to the most frugal."""
    cpu = torch.device("cpu")
    return [(cpu, BATCH["cpu"])] if device.type == "cpu" else [(device, BATCH["cuda"]), (cpu, 1)]


def _labels(
    model: SegmentationModel,
    images_CZYX: np.ndarray,
    tasks: Sequence[Task],
    geometry: Geometry,
    windows: Windows,
    row_parts: Sequence[tuple[int, int]],
    keep_on: torch.device,
    batch: int,
) -> dict[str, np.ndarray]:
    maps = [np.zeros(geometry.cropped_shape_zyx, dtype=np.uint8) for _ in tasks]

    def fill(rows: tuple[int, int]) -> None:  # a function, so that its sums are freed before those of the next rows
        native = [NativeLabels(geometry.shape_zyx, labels_ZYX, rows) for labels_ZYX in maps]
        found = slabs(model, images_CZYX, tasks, windows, rows=native[0].grid_rows, keep_on=keep_on, batch=batch)
        for start, slab in found:
            for labels, probabilities_KZYX in zip(native, slab, strict=True):
                labels.add(start, probabilities_KZYX)

    for rows in row_parts:
        fill(rows)
    return {task.name: geometry.placed(labels_ZYX) for task, labels_ZYX in zip(tasks, maps, strict=True)}


def _row_parts(
    tasks: Sequence[Task], shape_zyx: Triple, native_rows: int, patch_size_zyx: Triple, keep_on: torch.device
) -> list[tuple[int, int]]:
    """Return ranges of native rows such that the sums of each fit their memory; one range where all of them fit."""
    most = ACCUMULATOR_BYTES if keep_on.type == "cpu" else max(1, _free_bytes(keep_on) // 3)
    columns = max(shape_zyx[2], patch_size_zyx[2])
    row_bytes = 4 * sum(task.num_classes for task in tasks) * patch_size_zyx[0] * columns
    parts = min(native_rows, math.ceil(row_bytes * shape_zyx[1] / most))
    edges = [native_rows * number // parts for number in range(parts + 1)]
    return list(itertools.pairwise(edges))


def _free_bytes(device: torch.device) -> int:
    """Return the memory of a GPU that this process can get, with what its allocator keeps for later."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def sums_device(
    device: torch.device, tasks: Sequence[Task], shape_zyx: Sequence[int], patch_size_zyx: Triple
) -> torch.device:
    """Return where the sums of whole planes fit: the network's device, or else the processor."""
    fits = device.type == "cpu" or len(_row_parts(tasks, _triple(shape_zyx), shape_zyx[1], patch_size_zyx, device)) == 1
    return device if fits else torch.device("cpu")


@torch.no_grad()
def slabs(
    model: SegmentationModel,
    images_CZYX: np.ndarray,
    tasks: Sequence[Task],
    windows: Windows,
    *,
    rows: tuple[int, int] | None = None,
    keep_on: torch.device | None = None,
    batch: int | None = None,
) -> Iterator[Slab]:
    """Yield the planes of a volume in order, as soon as they are complete.

    Args:
        model: the network, in evaluation mode.
        images_CZYX: a preprocessed image; windows larger than it are filled with zeros on both sides.
        tasks: tasks of the network with the image's channels.
        windows: how the volume is predicted.
        rows: first and last row (exclusive) along y that are wanted; default: all.
        keep_on: where sums are kept; default: the network's device.
        batch: windows or flips that are predicted together; default: by the device.

    Yields:
        Slabs of the wanted rows.

    Raises:
        NotFinite: a probability is not finite, since the network overflowed.
    """
    device = next(model.parameters()).device
    keep_on = keep_on or device
    volume_CZYX = torch.as_tensor(np.ascontiguousarray(images_CZYX, dtype=np.float32))
    for task in tasks:
        model.check_input(volume_CZYX[None], task)
    precision = choose(device, windows.precision)
    layout = _Layout.of(volume_CZYX.shape[1:], windows, rows)
    if any(layout.padding):
        volume_CZYX = torch.nn.functional.pad(volume_CZYX, layout.padding)
    size = _batch_size(model, tasks, windows, batch or BATCH.get(device.type, BATCH["cuda"]))
    sums = _Sums(layout, tasks, windows, keep_on)
    flips = _flips(windows.mirror_axes)
    for number, z in enumerate(layout.starts_z):
        work = itertools.product(layout.starts_yx, flips)
        with autocast(device, precision):
            while group := list(itertools.islice(work, size)):
                windows_BCZYX = torch.stack(
                    [volume_CZYX[(slice(None), *layout.window(z, *place))].flip(flip) for place, flip in group]
                )
                features = model.encode(on_device(windows_BCZYX, device, memory_format=memory_format(device)))
                for task_number, task in enumerate(tasks):
                    logits_BKZYX = model.decode(features, task)[0]
                    for item, (place, flip) in enumerate(group):
                        sums.add(model, task_number, logits_BKZYX[item : item + 1], z, place, flip)
        following = layout.starts_z[number + 1] if number + 1 < len(layout.starts_z) else layout.size_zyx[0]
        yield from sums.complete(z, following)


def _flips(mirror_axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the axes of C,Z,Y,X to flip, nothing first."""
    axes = [axis + 1 for axis in mirror_axes]
    return [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]


def _batch_size(model: SegmentationModel, tasks: Sequence[Task], windows: Windows, most: int) -> int:
    """Return how many windows are predicted together: one where a network uses the statistics of its batch."""
    if any(_uses_the_batch(module) for module in model.modules()):
        return 1
    classes = max(task.num_classes for task in tasks)
    return max(1, min(most, BATCH_BYTES // (4 * classes * math.prod(windows.patch_size_zyx))))


def _uses_the_batch(module: torch.nn.Module) -> bool:
    return isinstance(module, BatchStatisticsNorm) or (isinstance(module, _BatchNorm) and module.running_mean is None)


@dataclass(frozen=True)
class _Layout:
    """Where windows lie on the volume with its padding, and which part of it is wanted.

    size_zyx: the volume with its padding. before_zyx: voxels of padding before the image. inner_zyx: the image.
    rows: the wanted rows of the volume with its padding.
    """

    size_zyx: Triple
    inner_zyx: Triple
    before_zyx: Triple
    patch_zyx: Triple
    rows: tuple[int, int]
    starts_z: list[int]
    starts_yx: list[tuple[int, int]]

    @classmethod
    def of(cls, shape_zyx: Sequence[int], windows: Windows, rows: tuple[int, int] | None) -> _Layout:
        patch, inner = windows.patch_size_zyx, _triple(shape_zyx)
        size = _triple(map(max, inner, patch))
        before = _triple((full - image) // 2 for full, image in zip(size, inner, strict=True))
        first, last = rows or (0, inner[1])
        rows = (first + before[1], last + before[1])
        along = [_starts(full, part, windows.step) for full, part in zip(size, patch, strict=True)]
        wanted = [start for start in along[1] if start < rows[1] and start + patch[1] > rows[0]]
        return cls(size, inner, before, patch, rows, along[0], list(itertools.product(wanted, along[2])))

    @property
    def padding(self) -> list[int]:
        """Voxels before and after the image, x first as `torch.nn.functional.pad` has it."""
        parts = zip(self.size_zyx, self.inner_zyx, self.before_zyx, strict=True)
        return [side for full, size, before in reversed(list(parts)) for side in (before, full - size - before)]

    def window(self, *start: int) -> tuple[slice, ...]:
        return tuple(slice(first, first + part) for first, part in zip(start, self.patch_zyx, strict=True))


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x


def _starts(size: int, patch: int, step: float) -> list[int]:
    """Return where windows begin along an axis; the last one ends with the volume."""
    distance = max(1, int(patch * step))
    count = math.ceil((size - patch) / distance) + 1
    return [min(number * distance, size - patch) for number in range(count)]


class _Sums:
    """Weighted sums of the planes that a row of windows covers, a ring along z."""

    def __init__(self, layout: _Layout, tasks: Sequence[Task], windows: Windows, device: torch.device):
        self.layout, self.tasks, self.device = layout, tasks, device
        self._depth = layout.patch_zyx[0]
        self._flip_count = len(_flips(windows.mirror_axes))
        shape = (self._depth, layout.rows[1] - layout.rows[0], layout.size_zyx[2])
        self._weights_ZYX = gaussian_weights(layout.patch_zyx).to(device)
        self._sum_of_weights_ZYX = torch.zeros(shape, device=device)
        self._sums_KZYX = [torch.zeros((task.num_classes, *shape), device=device) for task in tasks]
        self._of_window_KZYX: list[Tensor | None] = [None] * len(tasks)
        self._flips_seen = [0] * len(tasks)

    def add(
        self,
        model: SegmentationModel,
        number: int,
        logits_BKZYX: Tensor,
        z: int,
        place: tuple[int, int],
        flip: tuple[int, ...],
    ) -> None:
        """Add one window of one task; its flips come one after the other and are averaged first."""
        seen = self._flips_seen[number] = self._flips_seen[number] % self._flip_count + 1
        for first, last in self._pieces(logits_BKZYX):
            piece_KZYX = model.probabilities(logits_BKZYX[:, :, first:last], self.tasks[number])[0]
            piece_KZYX = (piece_KZYX.flip(flip) if flip else piece_KZYX).to(self.device)  # no flip would be a copy
            if 1 in flip:
                first, last = self._depth - last, self._depth - first
            if self._flip_count == 1:
                self._add_weighted(number, piece_KZYX, first, z, place)
                continue
            if self._of_window_KZYX[number] is None:
                shape = (len(piece_KZYX), *self.layout.patch_zyx)
                self._of_window_KZYX[number] = torch.empty(shape, device=self.device)
            whole_KZYX = self._of_window_KZYX[number]
            assert whole_KZYX is not None
            if seen == 1:
                whole_KZYX[:, first:last] = piece_KZYX
            else:
                whole_KZYX[:, first:last] += piece_KZYX
            if seen == self._flip_count:
                self._add_weighted(number, whole_KZYX[:, first:last].div_(self._flip_count), first, z, place)
        if number == 0 and seen == self._flip_count:
            for own, inside, rows, columns in self._targets(0, self._depth, z, place):
                part_ZYX = self._weights_ZYX[inside, rows]
                self._sum_of_weights_ZYX[own][:, self._own_rows(place), columns] += part_ZYX

    def _pieces(self, logits_BKZYX: Tensor) -> list[tuple[int, int]]:
        plane_bytes = 4 * logits_BKZYX[0, :, 0].numel()
        planes = max(1, PIECE_BYTES.get(logits_BKZYX.device.type, PIECE_BYTES["cuda"]) // plane_bytes)
        return [(first, min(first + planes, self._depth)) for first in range(0, self._depth, planes)]

    def _add_weighted(self, number: int, piece_KZYX: Tensor, first: int, z: int, place: tuple[int, int]) -> None:
        """Add probabilities that are ours to change, from plane `first` of the window on."""
        last = first + piece_KZYX.shape[1]
        piece_KZYX *= self._weights_ZYX[first:last]
        for own, inside, rows, columns in self._targets(first, last, z, place):
            source = slice(inside.start - first, inside.stop - first)
            self._sums_KZYX[number][:, own, self._own_rows(place), columns] += piece_KZYX[:, source, rows]

    def _own_rows(self, place: tuple[int, int]) -> slice:
        """Return the rows of the sums that a window reaches."""
        low, high = self.layout.rows
        return slice(max(place[0], low) - low, min(place[0] + self.layout.patch_zyx[1], high) - low)

    def _targets(
        self, first: int, last: int, z: int, place: tuple[int, int]
    ) -> Iterator[tuple[slice, slice, slice, slice]]:
        """Yield (planes of the ring, planes of the window, rows of the window, columns) of planes of a window."""
        low, high = self.layout.rows
        rows = slice(max(low - place[0], 0), min(high - place[0], self.layout.patch_zyx[1]))
        columns = slice(place[1], place[1] + self.layout.patch_zyx[2])
        for own in self._ring(z + first, z + last):
            inside = slice(first, first + own.stop - own.start)
            first = inside.stop
            yield own, inside, rows, columns

    def _ring(self, first: int, last: int) -> list[slice]:
        """Return where planes of the volume lie in the ring, in order: one part, or two around its end."""
        begin, count = first % self._depth, last - first
        until_end = min(count, self._depth - begin)
        parts = [slice(begin, begin + until_end), slice(0, count - until_end)]
        return [part for part in parts if part.stop > part.start]

    def complete(self, first: int, last: int) -> Iterator[Slab]:
        """Yield planes that no further window reaches, without padding, and free their room in the ring."""
        for own in self._ring(first, last):
            begin = first - self.layout.before_zyx[0]
            first += own.stop - own.start
            inner = slice(max(0, -begin), own.stop - own.start)
            end = min(begin + own.stop - own.start, self.layout.inner_zyx[0])
            columns = slice(self.layout.before_zyx[2], self.layout.before_zyx[2] + self.layout.inner_zyx[2])
            parts = []
            for sums_KZYX in self._sums_KZYX:
                sums_KZYX[:, own] /= self._sum_of_weights_ZYX[own]
                inner_KZYX = sums_KZYX[:, own][:, inner.start : end - begin, :, columns]
                if not math.isfinite(float(inner_KZYX.sum())):  # of one pass over memory and nothing kept
                    raise NotFinite("the network's probabilities are not finite")
                parts.append(inner_KZYX)
            if end > max(begin, 0):
                yield Slab(max(begin, 0), parts)
            for sums_KZYX in (*self._sums_KZYX, self._sum_of_weights_ZYX[None]):
                sums_KZYX[:, own] = 0


def gaussian_weights(patch_size_zyx: Triple) -> Tensor:
    """Return weights_ZYX (float32) of a window: a Gaussian around its centre, at least `LEAST_WEIGHT`."""
    weights = torch.ones(())
    for size in patch_size_zyx:
        distances = torch.arange(-(size - 1) / 2, (size - 1) / 2 + 1, dtype=torch.float32)
        line = torch.exp(distances**2 / (-2 * (SIGMA * size) ** 2))
        weights = weights[..., None] * line if weights.ndim else line
    return weights.clamp_(min=max(float(weights.min()), LEAST_WEIGHT))
