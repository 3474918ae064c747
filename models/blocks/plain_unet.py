"""The plain 3D U-Net of Models Genesis, which the CLIP-driven universal model and SuPreM use as their backbone.

Axis legend: B batch, C channel, Z Y X space. Written from the facts of the released networks (Zhou et al., MICCAI 2019;
Liu et al., ICCV 2023). Modules have the names of the released state dicts, so that they load as they are.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

DOWN = ("down_tr64", "down_tr128", "down_tr256", "down_tr512")
UP = ("up_tr256", "up_tr128", "up_tr64")
NORM_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")  # this batch norm never reads them


class BatchStatisticsNorm(nn.Module):
    """Batch norm that uses the statistics of the batch at hand, in training and in evaluation."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the normalised features."""
        return functional.batch_norm(x_BCZYX, None, None, self.weight, self.bias, training=True)


class Convolution(nn.Module):
    """3x3x3 convolution, norm, activation: relu, elu or prelu, the last with `slopes` learned slopes."""

    def __init__(self, inputs: int, outputs: int, *, activation: str = "relu", slopes: int | None = None):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.bn1 = BatchStatisticsNorm(outputs)
        self.activation: nn.Module = nn.ELU() if activation == "elu" else nn.ReLU()
        if activation == "prelu":
            self.activation = nn.PReLU(slopes or outputs)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same size."""
        return self.activation(self.bn1(self.conv1(x_BCZYX)))


class Down(nn.Module):
    """Two convolutions; the first has half the width."""

    def __init__(self, inputs: int, outputs: int, convolution: partial[Convolution]):
        super().__init__()
        self.ops = nn.Sequential(convolution(inputs, outputs // 2), convolution(outputs // 2, outputs))

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same size."""
        return self.ops(x_BCZYX)


class Up(nn.Module):
    """Transposed convolution by 2, skip concatenated after it, two convolutions."""

    def __init__(self, below: int, width: int, convolution: partial[Convolution]):
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(below, below, 2, 2)
        self.ops = nn.Sequential(convolution(below + width, width), convolution(width, width))

    def forward(self, x_BCZYX: Tensor, skip_BCZYX: Tensor) -> Tensor:
        """Return features of the skip's size."""
        return self.ops(torch.cat([self.up_conv(x_BCZYX), skip_BCZYX], dim=1))


class PlainUNet(nn.Module):
    """Four stages with max pooling between, widths doubling from twice the base.

    Args:
        channels: of the image.
        base: width of the very first convolution.
        activation: relu, elu or prelu; slopes: of a prelu, by default one per channel.
    """

    def __init__(self, channels: int, base: int, *, activation: str = "relu", slopes: int | None = None):
        super().__init__()
        convolution = partial(Convolution, activation=activation, slopes=slopes)
        widths = [2 * base * 2**stage for stage in range(4)]
        for name, inputs, width in zip(DOWN, [channels, *widths], widths, strict=False):
            self.add_module(name, Down(inputs, width, convolution))
        for name, below, width in zip(UP, widths[:0:-1], widths[-2::-1], strict=True):
            self.add_module(name, Up(below, width, convolution))

    def stages(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the features of the bottleneck and of every decoder stage, full resolution last."""
        skips = [self.get_submodule(DOWN[0])(images_BCZYX)]
        for name in DOWN[1:]:
            skips.append(self.get_submodule(name)(functional.max_pool3d(skips[-1], 2)))
        features = [skips.pop()]
        for name in UP:
            features.append(self.get_submodule(name)(features[-1], skips.pop()))
        return features

    def forward(self, images_BCZYX: Tensor) -> tuple[Tensor, Tensor]:
        """Return bottleneck features and full-resolution features."""
        features = self.stages(images_BCZYX)
        return features[0], features[-1]
