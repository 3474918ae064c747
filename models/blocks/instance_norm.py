"""Instance norm in the memory layout of its input. Axis legend: B batch, C channel, Z Y X space.

On a processor PyTorch's own copies channels-last features to the contiguous layout, and the next convolution copies
them back; the gradient takes the same way. PyTorch's batch norm of a single sample is the same function and stays in
the layout (docs/performance.md has the times).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_BYTES = 32
"""Bytes of one voxel's channels below which PyTorch's batch norm computes number by number, and is the slower one."""


def instance_norm(
    x_BCZYX: Tensor, weight_C: Tensor | None = None, bias_C: Tensor | None = None, *, eps: float
) -> Tensor:
    """Return each channel of each sample with mean 0 and variance 1 over space, scaled and shifted, in the layout of x.

    The numbers are those of `torch.nn.functional.instance_norm` up to rounding.

    Raises:
        ValueError: there is one voxel only.
    """
    layout = torch.channels_last_3d
    if x_BCZYX.device.type != "cpu" or x_BCZYX.dim() != 5 or not x_BCZYX.is_contiguous(memory_format=layout):
        return functional.instance_norm(x_BCZYX, weight=weight_C, bias=bias_C, eps=eps)
    if x_BCZYX.shape[1] * x_BCZYX.element_size() < LEAST_BYTES:
        return functional.instance_norm(x_BCZYX, weight=weight_C, bias=bias_C, eps=eps).contiguous(memory_format=layout)
    samples = [
        functional.batch_norm(x_1CZYX, None, None, weight_C, bias_C, training=True, eps=eps)
        for x_1CZYX in x_BCZYX.split(1)
    ]
    return samples[0] if len(samples) == 1 else torch.cat(samples)


class InstanceNorm(nn.InstanceNorm3d):
    """PyTorch's layer, parameters and their names included, by `instance_norm`."""

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape and layout."""
        return instance_norm(x_BCZYX, self.weight, self.bias, eps=self.eps)
