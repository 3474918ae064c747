"""FLOPs of a network, counted on shapes alone: two per multiply-add of convolutions, matrix products and attention."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.interface import SegmentationModel


def forward_flops(model: SegmentationModel, patch_zyx: tuple[int, int, int]) -> int:
    """Return the FLOPs of one forward pass of one patch of the first task, without memory or arithmetic."""
    task = next(iter(model.tasks))
    # The counter follows gradients, which a view of a parameter does not have here.
    shadow = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shadow(torch.empty(1, task.num_channels, *patch_zyx, device="meta"), task)
    return counter.get_total_flops()
