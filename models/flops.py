"""FLOPs of a network: two per multiply-add of convolutions, matrix products and attention."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.interface import SegmentationModel


def forward_flops(model: SegmentationModel, patch_zyx: tuple[int, int, int]) -> int:
    """Return the FLOPs of one forward pass of one patch of the first task.

    They are counted on shapes, without memory or arithmetic; a network that looks at values takes an image of zeros.
    """
    try:
        return _counted(model, patch_zyx, torch.device("meta"))
    except (NotImplementedError, RuntimeError):  # there are no values; any other reason comes again
        return _counted(model, patch_zyx, torch.device("cpu"))


def _counted(model: SegmentationModel, patch_zyx: tuple[int, int, int], device: torch.device) -> int:
    task = next(iter(model.tasks))
    # The counter follows gradients, which a view of a parameter does not have here.
    shadow = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shadow(torch.zeros(1, task.num_channels, *patch_zyx, device=device), task)
    return counter.get_total_flops()
