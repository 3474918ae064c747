"""The shared decoder for several tasks on one image: what the skips add is computed once.

Axis legend: B batch, C channel, Z Y X space. A convolution over concatenated inputs is the sum of convolutions over
the parts, and the skips are the same for every task: a third of each stage's arithmetic leaves the per-task work.
Parameters and names are those of `SharedDecoder`; sums round differently in the last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import ConvBlock, SharedDecoder


class SkipSharingDecoder(SharedDecoder):
    """Decoder whose stages can use parts of the skips that were computed before."""

    def skip_parts(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return what each stage's first convolution makes of its skip, bias included, coarsest stage first."""
        skips = reversed(features[:-1])
        return [
            _convolved(_pair(block)[0].conv, skip_BCZYX, first_input=_width(up), bias=_pair(block)[0].conv.bias)
            for up, block, skip_BCZYX in zip(self.up, self.blocks, skips, strict=True)
        ]

    def from_parts(
        self, bottleneck_BCZYX: Tensor, parts: Sequence[Tensor], extra: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Return the features of every stage as `forward` does, full resolution first."""
        x_BCZYX, outputs = bottleneck_BCZYX, []
        for depth, (up, block, part_BCZYX) in enumerate(zip(self.up, self.blocks, parts, strict=True)):
            if extra is not None and depth == self.extra_level:
                x_BCZYX = torch.cat([x_BCZYX, extra(x_BCZYX)], dim=1)
            first, second = _pair(block)
            x_BCZYX = _convolved(first.conv, up(x_BCZYX)) + part_BCZYX
            x_BCZYX = second(first.activation(first.norm(x_BCZYX)))
            outputs.append(x_BCZYX)
        return outputs[::-1]


def _pair(block: nn.Module) -> tuple[ConvBlock, ConvBlock]:
    first, second = cast(Iterable[ConvBlock], block.children())
    return first, second


def _width(up: nn.Module) -> int:
    return cast(nn.ConvTranspose3d, up).out_channels


def _convolved(conv: nn.Conv3d, x_BCZYX: Tensor, *, first_input: int = 0, bias: Tensor | None = None) -> Tensor:
    """Apply the part of a convolution that reads the channels of `x_BCZYX`, from input `first_input` on."""
    weight = conv.weight[:, first_input : first_input + x_BCZYX.shape[1]]
    return functional.conv3d(x_BCZYX, weight, bias, conv.stride, conv.padding)
