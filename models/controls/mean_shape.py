"""Control: the most frequent class at each relative position of the training cases; position without image."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Mean shape",
    "predicts": "the most frequent class at each relative position of the training cases; position without image",
}
GRID = 48


def fit(cases, task) -> np.ndarray:
    """Return counts_KZYX of each class on a relative grid of GRID voxels per axis."""
    counts_KZYX = np.zeros((task.num_classes, GRID, GRID, GRID), dtype=np.int32)
    for case in cases:
        labels_ZYX = np.asarray(case.labels[:])
        on_grid_ZYX = labels_ZYX[np.ix_(*(_positions(GRID, size) for size in labels_ZYX.shape))]
        for value in range(task.num_classes):
            counts_KZYX[value] += on_grid_ZYX == value
    return counts_KZYX


def predict(fitted: np.ndarray, case, task) -> np.ndarray:
    """Return labels_ZYX (uint8): foreground where at least half of the training cases had some, its commonest class."""
    foreground_KZYX = fitted[1:]
    total = fitted.sum(axis=0)
    labels_grid = np.where(2 * foreground_KZYX.sum(axis=0) >= total, 1 + foreground_KZYX.argmax(axis=0), 0)
    return labels_grid[np.ix_(*(_positions(size, GRID) for size in case.labels.shape))].astype(np.uint8)


def _positions(count: int, size: int) -> np.ndarray:
    """Return `count` indices into an axis of `size` voxels at evenly spaced voxel centres."""
    return ((np.arange(count) + 0.5) * size / count).astype(int)
