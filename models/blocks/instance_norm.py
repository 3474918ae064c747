"""Instance norm in the memory layout of its input. Axis legend: B batch, C channel, Z Y X space.

On a processor PyTorch's own copies channels-last features to the contiguous layout, and the next convolution copies
them back; the gradient takes the same way. PyTorch's batch norm of a single sample is the same function and stays in
the layout (docs/performance.md), but it adds up a whole volume in one float32: statistics are therefore taken here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_BYTES = 32
"""Bytes of one voxel's channels below which PyTorch's batch norm computes number by number, and is the slower one."""
PIECE_NUMBERS = 1 << 18
"""Numbers whose distances from the mean are held at a time."""
LAYOUT, SPACE = torch.channels_last_3d, (2, 3, 4)


def instance_norm(
    x_BCZYX: Tensor, weight_C: Tensor | None = None, bias_C: Tensor | None = None, *, eps: float
) -> Tensor:
    """Return each channel of each sample with mean 0 and variance 1 over space, scaled and shifted.

    The numbers are those of `torch.nn.functional.instance_norm` up to rounding. On a processor the layout is that of x.

    Raises:
        ValueError: there is one voxel only.
    """
    other_layout = x_BCZYX.dim() != 5 or not x_BCZYX.is_contiguous(memory_format=LAYOUT)
    few_channels = x_BCZYX.shape[1] * x_BCZYX.element_size() < LEAST_BYTES
    others = other_layout or few_channels or x_BCZYX.dtype == torch.float64 or x_BCZYX[0, 0].numel() == 1
    if x_BCZYX.device.type == "cpu" and not others:
        normed_BCZYX: Tensor = _ChannelsLast.apply(x_BCZYX, weight_C, bias_C, eps)
        return normed_BCZYX
    normed_BCZYX = functional.instance_norm(x_BCZYX, weight=weight_C, bias=bias_C, eps=eps)
    take_gradient_in_own_layout(normed_BCZYX)
    if x_BCZYX.device.type == "cpu" and not other_layout:
        return normed_BCZYX.contiguous(memory_format=LAYOUT)
    return _no_view(normed_BCZYX)


def take_gradient_in_own_layout(normed: Tensor) -> None:
    """Have the gradient of what PyTorch's instance or batch norm returned be in the layout of that.

    For a batch of one, on a processor, PyTorch 2.13 takes one layout for the other where the stride along the batch,
    which says nothing, is that of a view: in instance norm, which computes on one, and in batch norm of tokens that
    were made a volume, or whose gradient is one of tokens. All gradients behind it are then wrong.
    """
    if normed.requires_grad and normed.device.type == "cpu" and len(normed) == 1:
        last = not normed.is_contiguous() and normed.dim() == 5 and normed.is_contiguous(memory_format=LAYOUT)
        layout = LAYOUT if last else torch.contiguous_format
        normed.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))


def _no_view(values: Tensor) -> Tensor:
    """Return the same memory as no view of another tensor, for whose gradient an activation in place would copy it."""
    same: Tensor = torch.ops.aten._unsafe_view.default(values, values.shape)
    return same


class InstanceNorm(nn.InstanceNorm3d):
    """PyTorch's layer, parameters and their names included, by `instance_norm`."""

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape."""
        if x_BCZYX.dim() != 5 or self.track_running_stats:
            return super().forward(x_BCZYX)
        return instance_norm(x_BCZYX, self.weight, self.bias, eps=self.eps)


class _ChannelsLast(torch.autograd.Function):
    """Instance norm of channels-last features on a processor, sample by sample, by the kernels of batch norm."""

    @staticmethod
    def forward(ctx: Any, x_BCZYX: Tensor, weight_C: Tensor | None, bias_C: Tensor | None, eps: float) -> Tensor:
        mean_BC, var_BC = _mean_and_variance(x_BCZYX)
        ctx.eps = eps
        ctx.save_for_backward(x_BCZYX, weight_C, mean_BC, (var_BC + eps).rsqrt())
        return _together(
            torch.native_batch_norm(x_1CZYX, weight_C, bias_C, mean_C, var_C, False, 0.0, eps)[0]
            for x_1CZYX, mean_C, var_C in zip(x_BCZYX.split(1), mean_BC, var_BC, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BCZYX, weight_C, mean_BC, scale_BC = ctx.saved_tensors
        gradient_BCZYX = gradients[0].contiguous(memory_format=LAYOUT)
        mask = [bool(needed) for needed in ctx.needs_input_grad[:3]]
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                gradient_1CZYX, x_1CZYX, weight_C, None, None, mean_C, scale_C, True, ctx.eps, mask
            )
            for gradient_1CZYX, x_1CZYX, mean_C, scale_C in zip(
                gradient_BCZYX.split(1), x_BCZYX.split(1), mean_BC, scale_BC, strict=True
            )
        ]
        of_x, of_weight, of_bias = zip(*parts, strict=True)
        return (
            _together(of_x) if mask[0] else None,
            torch.stack(of_weight).sum(0) if mask[1] else None,
            torch.stack(of_bias).sum(0) if mask[2] else None,
            None,
        )


def _mean_and_variance(x_BCZYX: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean_BC and the variance over all voxels, var_BC, in float32, from pieces that a cache holds."""
    voxels, planes = x_BCZYX[0, 0].numel(), max(1, PIECE_NUMBERS // x_BCZYX[:, :, 0].numel())
    mean_BC111 = x_BCZYX.sum(SPACE, dtype=torch.float32, keepdim=True) / voxels
    var_BC = torch.zeros(x_BCZYX.shape[:2])
    for piece_BCZYX in x_BCZYX.split(planes, dim=2):
        var_BC += (piece_BCZYX - mean_BC111).square_().sum(SPACE)
    return mean_BC111.flatten(1), var_BC / voxels


def _together(samples: Any) -> Tensor:
    parts = list(samples)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
