"""Where the structures are: one look at each volume, so that everything else works on small boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from segbench.core.task import Structure

Box = tuple[slice, slice, slice]
PLANES_AT_ONCE = 8
"""Planes of a crop that wide intermediate arrays are made for at once: they add little to the peak of memory."""


def structure_masks(
    labels_XYZ: tuple[np.ndarray, np.ndarray], structures: Sequence[Structure]
) -> Iterator[tuple[Structure, np.ndarray, np.ndarray]]:
    """Yield each structure with its two boolean masks, cut to the box around both (1 voxel where both are empty)."""
    outer = _union([_foreground_box(labels) for labels in labels_XYZ])
    inside = [labels[outer] for labels in labels_XYZ]
    highest = max((label for structure in structures for label in structure.labels), default=0)
    boxes = [ndimage.find_objects(labels, max_label=highest) for labels in inside]
    for structure in structures:
        box = _structure_box(boxes, structure)
        first, second = (_mask(labels[box], structure.labels) for labels in inside)
        yield structure, first, second


def _foreground_box(labels_XYZ: np.ndarray) -> Box | None:
    """Return the box around everything that is not 0, None without any; the first axis is cut first as it is cheap."""
    box: list[slice] = []
    for axis in range(3):
        view = labels_XYZ[tuple(box)]
        used = np.flatnonzero(view.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return box[0], box[1], box[2]


def _structure_box(boxes: Sequence[Sequence[tuple[slice, ...] | None]], structure: Structure) -> Box:
    return _union([of_volume[label - 1] for of_volume in boxes for label in structure.labels])


def _union(boxes: Sequence[tuple[slice, ...] | None]) -> Box:
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 1),) * 3
    x, y, z = (
        slice(min(box[axis].start for box in present), max(box[axis].stop for box in present)) for axis in range(3)
    )
    return x, y, z


def _mask(labels_XYZ: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Return where the label is one of the wanted, in C order whatever the order of the input."""
    mask = np.equal(labels_XYZ, wanted[0], out=np.empty(labels_XYZ.shape, dtype=bool))
    for label in wanted[1:]:
        mask |= labels_XYZ == label
    return mask
