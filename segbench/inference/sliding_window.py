"""Sliding-window inference with Gaussian blending through MONAI. Axis legend: B batch, K class, Z Y X space."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from models.interface import SegmentationModel
from segbench.core.task import Task

Triple = tuple[int, int, int]


@torch.no_grad()
def predict_probabilities(
    model: SegmentationModel,
    images_CZYX: np.ndarray,
    tasks: Sequence[Task],
    *,
    patch_size_zyx: Triple,
    step: float = 0.5,
    mirror_axes: Sequence[int] = (),
) -> dict[str, np.ndarray]:
    """Return task name -> probabilities_KZYX (float32); several tasks share one encoding of every window.

    step: distance of windows as a fraction of the patch. mirror_axes (z, y, x = 0, 1, 2): every combination of flips is
    predicted and averaged.
    """
    from monai.inferers import sliding_window_inference  # imported where it is used: it costs seconds

    device = next(model.parameters()).device
    images_BCZYX = torch.as_tensor(np.ascontiguousarray(images_CZYX))[None].to(device)

    def predict(windows_BCZYX: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = None
        for flips in _flips(mirror_axes):
            features = model.encode(windows_BCZYX.flip(flips) if flips else windows_BCZYX)
            found = [model.probabilities(model.decode(features, task)[0], task) for task in tasks]
            found = [item.flip(flips) if flips else item for item in found]
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        return tuple(total)

    for task in tasks:
        model.check_input(images_BCZYX, task)
    found = sliding_window_inference(
        images_BCZYX, patch_size_zyx, 1, predict, overlap=1 - step, mode="gaussian", padding_mode="constant"
    )
    found = found if isinstance(found, (tuple, list)) else (found,)
    return {task.name: item[0].float().cpu().numpy() for task, item in zip(tasks, found, strict=True)}


def _flips(mirror_axes: Sequence[int]) -> list[tuple[int, ...]]:
    axes = [axis + 2 for axis in mirror_axes]
    return [flips for count in range(len(axes) + 1) for flips in itertools.combinations(axes, count)]
