"""Control: the commonest class at each relative position of the training cases; position without image."""

from __future__ import annotations

import numpy as np

from segbench.core.task import IGNORED

CARD = {
    "title": "Mean shape",
    "predicts": "the commonest class at each relative position where at least half of the training cases have any; "
    "position without image",
}
GRID = 48
ROUNDING = 1e-9


def fit(cases, task) -> np.ndarray:
    """Return the frequency of each foreground class, frequencies_KZYX, on a relative grid of GRID voxels per axis.

    A class counts in the cases in which it was looked for.
    """
    shape = (task.num_classes - 1, GRID, GRID, GRID)
    counts_KZYX, known_KZYX = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    for case in cases:
        labels_ZYX = np.asarray(case.labels[:])
        on_grid_ZYX = labels_ZYX[np.ix_(*(_positions(GRID, size) for size in labels_ZYX.shape))]
        for value in range(1, task.num_classes):
            if case.is_annotated(value):
                counts_KZYX[value - 1] += on_grid_ZYX == value
                known_KZYX[value - 1] += on_grid_ZYX != IGNORED
    return counts_KZYX / np.maximum(known_KZYX, 1)


def predict(fitted: np.ndarray, case, task) -> np.ndarray:
    """Return labels_ZYX (uint8): foreground where at least half of the training cases had some, its commonest class."""
    is_foreground_grid = fitted.sum(axis=0) >= 0.5 - ROUNDING
    labels_grid = np.where(is_foreground_grid, 1 + fitted.argmax(axis=0), 0)
    return labels_grid[np.ix_(*(_positions(size, GRID) for size in case.labels.shape))].astype(np.uint8)


def _positions(count: int, size: int) -> np.ndarray:
    """Return `count` indices into an axis of `size` voxels at evenly spaced voxel centres."""
    return ((np.arange(count) + 0.5) * size / count).astype(int)
