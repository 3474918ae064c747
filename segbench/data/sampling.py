"""Patches for training and the order of tasks. Axis legend: B batch, C channel, Z Y X space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segbench.core.task import Task
from segbench.data.store import PreprocessedCase

Triple = tuple[int, int, int]


class PatchSampler:
    """Draws batches from the training cases of one task.

    Each sample is centred on a voxel of a random present class with probability `foreground_fraction`, otherwise it
    lies anywhere; a volume smaller than the patch is padded with zeros (background). foreground_fraction: None for
    training without labels, which are then never read and returned as zeros; every sample lies anywhere.
    """

    def __init__(
        self,
        cases: Sequence[PreprocessedCase],
        task: Task,
        *,
        patch_size_zyx: Triple,
        foreground_fraction: float | None = 0.33,
    ):
        self.cases, self.task = list(cases), task
        self.patch_size_zyx = tuple(patch_size_zyx)
        self.foreground_fraction = foreground_fraction
        self.last_case_ids: list[str] = []

    def sample(self, rng: np.random.Generator, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images_BCZYX (float32) and labels_BZYX (uint8); `last_case_ids` names their cases."""
        chosen = [self.cases[index] for index in rng.integers(len(self.cases), size=batch_size)]
        self.last_case_ids = [case.case_id for case in chosen]
        patches = [self._patch(case, rng) for case in chosen]
        return np.stack([images for images, _ in patches]), np.stack([labels for _, labels in patches])

    def _patch(self, case: PreprocessedCase, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        centred = self.foreground_fraction is not None and rng.random() < self.foreground_fraction
        start = self._foreground_start(case, rng) if centred else None
        if start is None:
            start = [
                int(rng.integers(min(0, size - patch), max(0, size - patch) + 1))
                for size, patch in zip(case.shape_zyx, self.patch_size_zyx, strict=True)
            ]
        return read_patch(case, start, self.patch_size_zyx, labelled=self.foreground_fraction is not None)

    def _foreground_start(self, case: PreprocessedCase, rng: np.random.Generator) -> list[int] | None:
        present = [value for value in range(1, self.task.num_classes) if case.foreground(value)]
        if not present:
            return None
        positions = case.foreground(present[rng.integers(len(present))])
        centre = positions[rng.integers(len(positions))]
        return [
            int(np.clip(c - patch // 2, min(0, size - patch), max(0, size - patch)))
            for c, size, patch in zip(centre, case.shape_zyx, self.patch_size_zyx, strict=True)
        ]


def read_patch(
    case: PreprocessedCase, start_zyx: Sequence[int], size_zyx: Triple, *, labelled: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return images_CZYX and labels_ZYX of a window; parts outside the volume are zero, and labels not asked for."""
    inside = [
        slice(max(0, a), min(a + n, size)) for a, n, size in zip(start_zyx, size_zyx, case.shape_zyx, strict=True)
    ]
    images_CZYX = case.images[(slice(None), *inside)]
    shape_zyx = images_CZYX.shape[1:]
    labels_ZYX = case.labels[tuple(inside)] if labelled else np.zeros(shape_zyx, dtype=np.uint8)
    if shape_zyx == tuple(size_zyx):
        return images_CZYX, labels_ZYX
    outside = [(part.start - a, a + n - part.stop) for part, a, n in zip(inside, start_zyx, size_zyx, strict=True)]
    return np.pad(images_CZYX, [(0, 0), *outside]), np.pad(labels_ZYX, outside)


def task_schedule(
    sizes: Sequence[tuple[str, int]], iterations_per_task: int, *, rule: str, rng: np.random.Generator
) -> list[int]:
    """Return the task position of every step; `iterations_per_task` times the number of tasks in all.

    rule: 'equal' gives every task the same fraction, as in the released UniSeg trainer; 'proportional' one by its
    number of training cases; 'sqrt' by the square root of that. The order within is random.
    """
    weight = {"equal": lambda n: 1.0, "proportional": float, "sqrt": math.sqrt}[rule]
    weights = np.array([weight(count) for _, count in sizes])
    exact = weights / weights.sum() * iterations_per_task * len(sizes)
    counts = np.floor(exact).astype(int)
    for position in np.argsort(counts - exact)[: iterations_per_task * len(sizes) - counts.sum()]:
        counts[position] += 1
    rounds = max(1, iterations_per_task // 50)
    order: list[int] = []
    done = np.zeros_like(counts)
    for number in range(1, rounds + 1):
        upto = counts * number // rounds
        block = np.repeat(np.arange(len(counts)), upto - done)
        order += rng.permutation(block).tolist()
        done = upto
    return order
