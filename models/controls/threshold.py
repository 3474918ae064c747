"""Control: the best intensity window per class, found on the training cases; intensity without context."""

from __future__ import annotations

import numpy as np

CARD = {
    "title": "Threshold",
    "predicts": "the class whose best intensity window on the training cases holds the voxel; no context",
}
BINS = 64
VOXELS_PER_CASE = 20000
NOWHERE = (0, np.inf, np.inf)


def fit(cases, task) -> list[tuple[int, float, float]]:
    """Return (channel, lowest, highest) per foreground class: the window with the best pooled Dice in training.

    All windows between the edges of BINS quantile bins of every channel are tried, on the cases in which the class was
    looked for.
    """
    samples = [_sampled(case) for case in cases]
    images_CN, labels_N = _joined(samples)
    windows = []
    for value in range(1, task.num_classes):
        known = [own for own, case in zip(samples, cases, strict=True) if case.is_annotated(value)]
        if not known:
            windows.append(NOWHERE)
            continue
        own_CN, own_N = (images_CN, labels_N) if len(known) == len(samples) else _joined(known)
        windows.append(_best_window(own_CN, own_N == value))
    return windows


def predict(fitted: list[tuple[int, float, float]], case, task) -> np.ndarray:
    """Return labels_ZYX (uint8); where windows overlap the later class wins."""
    images_CZYX = np.asarray(case.images[:])
    labels_ZYX = np.zeros(images_CZYX.shape[1:], dtype=np.uint8)
    for value, (channel, lowest, highest) in enumerate(fitted, start=1):
        labels_ZYX[(images_CZYX[channel] >= lowest) & (images_CZYX[channel] < highest)] = value
    return labels_ZYX


def _sampled(case) -> tuple[np.ndarray, np.ndarray]:
    flat_N = np.asarray(case.labels[:]).ravel()
    stride = max(1, flat_N.size // VOXELS_PER_CASE)
    return np.asarray(case.images[:]).reshape(case.images.shape[0], -1)[:, ::stride], flat_N[::stride]


def _joined(samples) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([images for images, _ in samples], axis=1), np.concatenate([labels for _, labels in samples])


def _best_window(images_CN: np.ndarray, inside_N: np.ndarray) -> tuple[int, float, float]:
    best = (-1.0, 0, np.inf, np.inf)
    for channel, values_N in enumerate(images_CN):
        edges = np.unique(np.quantile(values_N, np.linspace(0, 1, BINS + 1)))
        edges[-1] = np.nextafter(edges[-1], np.inf)
        if len(edges) < 2:
            continue
        inside = np.concatenate([[0], np.cumsum(np.histogram(values_N[inside_N], edges)[0])])
        everything = np.concatenate([[0], np.cumsum(np.histogram(values_N, edges)[0])])
        hits = inside[None, :] - inside[:, None]
        size = everything[None, :] - everything[:, None]
        dice = np.where(size > 0, 2 * hits / np.maximum(size + inside_N.sum(), 1), -1.0)
        low, high = np.unravel_index(np.argmax(dice), dice.shape)
        if dice[low, high] > best[0]:
            best = (dice[low, high], channel, edges[low], edges[high])
    return best[1:]
