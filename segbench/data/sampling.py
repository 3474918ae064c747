"""Batches by the rules of nnU-Net, and the order of tasks. Axis legend: B batch, C channel, Z Y X space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segbench.core.task import Task
from segbench.data.resampled_patch import coordinates, interpolated, interpolated_labels, source_box
from segbench.data.store import PreprocessedCase
from segbench.data.transforms import Augmentation, Drawn, mirrored

Triple = tuple[int, int, int]
OUTSIDE = 254
"""Label, until a patch is given out, of a background voxel outside the non-zero mask; no class has this value."""


class Batch(NamedTuple):
    """images_BCZYX (float32), labels_BZYX (uint8), and what each sample came from."""

    images: Tensor
    labels: Tensor
    case_ids: list[str]
    drawn: list[Drawn]


class PatchSampler:
    """Draws batches from the training cases of one task, by the rules of nnU-Net v2's data loader.

    The last samples of a batch are forced to foreground (`is_forced`): they are centred on a voxel of a class that is
    drawn uniformly from those present in the case, as far as the lower border of the volume allows. The others lie
    anywhere inside. A volume smaller than the patch lies in its middle; outside is zero and background. Where a
    rotation or scaling is drawn, all voxels that it needs are read, so that a patch has invented voxels only outside
    the volume.

    Args:
        cases: preprocessed training cases.
        task: the task; None for training without labels, which are then never read and returned as zeros.
        patch_size_zyx: size of a patch.
        augmentation: what is drawn for each patch.
        foreground_fraction: fraction of a batch that is forced.
    """

    def __init__(
        self,
        cases: Sequence[PreprocessedCase],
        task: Task | None,
        *,
        patch_size_zyx: Triple,
        augmentation: Augmentation,
        foreground_fraction: float = 0.33,
    ):
        self.cases, self.task = list(cases), task
        self.patch_size_zyx = patch_size_zyx
        self.augmentation = augmentation
        self.foreground_fraction = foreground_fraction

    def sample(self, rng: np.random.Generator, batch_size: int, own: range | None = None) -> Batch:
        """Return a batch; the same state of `rng` gives the same one.

        Args:
            rng: what is drawn comes from it.
            batch_size: samples of the batch.
            own: samples whose patches are read and returned, None for all. Everything is drawn whatever they are.

        Returns:
            The batch: patches of its own samples, case ids and draws of all.
        """
        own = range(batch_size) if own is None else own
        chosen = [self.cases[index] for index in rng.integers(len(self.cases), size=batch_size)]
        images_BCZYX = np.empty((len(own), chosen[0].images.shape[0], *self.patch_size_zyx), dtype=np.float32)
        labels_BZYX = np.zeros((len(own), *self.patch_size_zyx), dtype=np.uint8)
        draws = []
        for number, case in enumerate(chosen):
            forced = self.task is not None and is_forced(number, batch_size, self.foreground_fraction)
            start_zyx = self._start(case, rng, forced=forced)
            drawn = self.augmentation.draw(images_BCZYX.shape[1], rng)
            draws.append(drawn)
            if number in own:
                image_CZYX, labels_ZYX = self._patch(case, start_zyx, drawn)
                images_BCZYX[number - own.start] = mirrored(image_CZYX.numpy(), drawn.mirrored)
                labels_BZYX[number - own.start] = mirrored(labels_ZYX.numpy(), drawn.mirrored)
        names = [case.case_id for case in chosen]
        return Batch(torch.from_numpy(images_BCZYX), torch.from_numpy(labels_BZYX), names, draws)

    def _start(self, case: PreprocessedCase, rng: np.random.Generator, *, forced: bool) -> list[int]:
        """Return the first voxel of a patch before its transform; both borders of a small volume are outside."""
        room = [size - patch for size, patch in zip(case.shape_zyx, self.patch_size_zyx, strict=True)]
        lowest = [0 if left >= 0 else left // 2 for left in room]
        voxel = self._foreground_voxel(case, rng) if forced else None
        if voxel is None:
            highest = [left if left >= 0 else -(-left // 2) for left in room]
            return [int(rng.integers(low, high + 1)) for low, high in zip(lowest, highest, strict=True)]
        bounds = zip(lowest, voxel, self.patch_size_zyx, strict=True)
        return [max(low, int(centre) - patch // 2) for low, centre, patch in bounds]

    def _foreground_voxel(self, case: PreprocessedCase, rng: np.random.Generator) -> np.ndarray | None:
        assert self.task is not None
        present = [value for value in range(1, self.task.num_classes) if len(case.foreground(value))]
        if not present:
            return None
        positions = case.foreground(present[rng.integers(len(present))])
        return positions[rng.integers(len(positions))]

    def _patch(self, case: PreprocessedCase, start_zyx: Sequence[int], drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Return images_CZYX and labels_ZYX of a sample, before mirroring.

        Channels with a non-zero mask are zero outside it after every step, as in nnU-Net.
        """
        labelled, size_zyx, affine = self.task is not None, self.patch_size_zyx, drawn.affine
        if affine is None:
            images_CZYX, labels_ZYX = read_patch(case, start_zyx, size_zyx, labelled=labelled)
            labels_ZYX = _with_outside(case, images_CZYX, labels_ZYX)
            images, labels = torch.from_numpy(images_CZYX), torch.from_numpy(labels_ZYX)
        else:
            images, labels = transformed_patch(case, start_zyx, size_zyx, affine, labelled=labelled)
        images = self.augmentation.change_intensities(images, drawn)
        if case.masked_channels:
            outside_ZYX = labels == OUTSIDE
            for channel in case.masked_channels:
                images[channel].masked_fill_(outside_ZYX, 0)
            labels.masked_fill_(outside_ZYX, 0)
        return images, labels


def _with_outside(case: PreprocessedCase, images_CZYX: np.ndarray, labels_ZYX: np.ndarray) -> np.ndarray:
    """Return the labels, with `OUTSIDE` for background voxels outside the non-zero mask."""
    if not case.masked_channels:
        return labels_ZYX
    empty_ZYX = ~images_CZYX[case.masked_channels].any(axis=0)
    return np.where(empty_ZYX & (labels_ZYX == 0), np.uint8(OUTSIDE), labels_ZYX)


def is_forced(sample: int, batch_size: int, fraction: float) -> bool:
    """Tell whether a sample of a batch is forced to foreground: those from round(batch size * (1 - fraction)) on.

    That is nnU-Net's rule: with its 0.33, one of 2, one of 3, and none of 1.
    """
    return sample >= round(batch_size * (1 - fraction))


def transformed_patch(
    case: PreprocessedCase,
    start_zyx: Sequence[int],
    size_zyx: Triple,
    affine: np.ndarray,
    *,
    labelled: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return images_CZYX and labels_ZYX of a window that is rotated and scaled about its centre.

    affine: 3x3 matrix from offsets in the window to offsets in the volume. Voxels outside the volume are zero. Labels
    of a case with a non-zero mask are `OUTSIDE` outside it.
    """
    box = source_box(start_zyx, size_zyx, affine, case.shape_zyx)
    centre = [a + (n - 1) / 2 - part.start for a, n, part in zip(start_zyx, size_zyx, box, strict=True)]
    places = coordinates(size_zyx, affine, centre)
    source_CZYX = case.images[(slice(None), *box)]
    images_CZYX = interpolated(torch.from_numpy(source_CZYX), places)
    if not labelled and not case.masked_channels:
        return images_CZYX, torch.zeros(size_zyx, dtype=torch.uint8)
    labels_ZYX = case.labels[tuple(box)] if labelled else np.zeros(source_CZYX.shape[1:], dtype=np.uint8)
    labels_ZYX = _with_outside(case, source_CZYX, labels_ZYX)
    outside = OUTSIDE if case.masked_channels else 0
    return images_CZYX, interpolated_labels(torch.from_numpy(labels_ZYX), places, outside=outside)


def read_patch(
    case: PreprocessedCase, start_zyx: Sequence[int], size_zyx: Triple, *, labelled: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return images_CZYX and labels_ZYX of a window; parts outside the volume are zero, and labels not asked for."""
    inside = [
        slice(min(max(0, a), size), max(0, min(a + n, size)))
        for a, n, size in zip(start_zyx, size_zyx, case.shape_zyx, strict=True)
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
