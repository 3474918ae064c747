"""Encoder and decoder shared by all, so that only the concept under test differs: the generic U-Net of nnU-Net v1.

Axis legend: B batch, C channel, K class, Z Y X space. Per stage two blocks of convolution (with bias), instance norm
and LeakyReLU; down-sampling by a strided first convolution of the next stage; transposed convolutions without bias
(kernel = stride); skip concatenated after the up-sampled features. Source: Isensee et al., Nature Methods 2021, and the
facts of the released UniSeg network. The very first convolution exists once per supported channel count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.blocks.instance_norm import InstanceNorm
from models.interface import NetworkSpec, stem_key
from segbench.core.errors import input_error

LEAKY_SLOPE = 0.01
NORM_EPS = 1e-5
Triple = tuple[int, int, int]


def same_padding(kernel_zyx: Triple) -> Triple:
    """Return the padding that keeps the size for an odd kernel."""
    z, y, x = ((size - 1) // 2 for size in kernel_zyx)
    return z, y, x


class ConvBlock(nn.Module):
    """Convolution with bias, instance norm (affine) and LeakyReLU 0.01."""

    is_compiled_region = True

    def __init__(self, inputs: int, outputs: int, *, kernel_zyx: Triple = (3, 3, 3), stride_zyx: Triple = (1, 1, 1)):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel_zyx, stride_zyx, same_padding(kernel_zyx))
        self.norm = InstanceNorm(outputs, eps=NORM_EPS, affine=True)
        self.activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same batch with `outputs` channels."""
        return self.activation(self.norm(self.conv(x_BCZYX)))


class StemBlock(nn.Module):
    """The first block: one convolution per supported channel count, norm and activation shared."""

    is_compiled_region = True

    def __init__(self, channel_counts: Sequence[int], outputs: int, *, kernel_zyx: Triple):
        super().__init__()
        self.conv = nn.ModuleDict(
            {
                stem_key(channels): nn.Conv3d(channels, outputs, kernel_zyx, padding=same_padding(kernel_zyx))
                for channels in channel_counts
            }
        )
        self.norm = InstanceNorm(outputs, eps=NORM_EPS, affine=True)
        self.activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)

    def check_channels(self, channels: int) -> None:
        """Raise InputError when there is no convolution for this channel count."""
        if stem_key(channels) not in self.conv:
            known = ", ".join(str(conv.in_channels) for conv in self.conv.values())
            raise input_error(
                "input", found=f"{channels} channel(s)", expected=known, fix="use a supported channel count"
            )

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features; the convolution is chosen by the input's channel count."""
        return self.activation(self.norm(self.conv[stem_key(x_BCZYX.shape[1])](x_BCZYX)))


class SharedEncoder(nn.Module):
    """Stem and stages; returns the features of every stage, finest first, bottleneck last."""

    is_compiled_region = True

    def __init__(self, spec: NetworkSpec, channel_counts: Sequence[int]):
        super().__init__()
        widths, kernels = spec.features, spec.conv_kernels_zyx
        self.stem = StemBlock(channel_counts, widths[0], kernel_zyx=kernels[0])
        self.first = ConvBlock(widths[0], widths[0], kernel_zyx=kernels[0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvBlock(widths[i], widths[i + 1], kernel_zyx=kernels[i + 1], stride_zyx=pool),
                ConvBlock(widths[i + 1], widths[i + 1], kernel_zyx=kernels[i + 1]),
            )
            for i, pool in enumerate(spec.pool_kernels_zyx)
        )

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return one feature map per stage, full resolution first."""
        features = [self.first(self.stem(images_BCZYX))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class SharedDecoder(nn.Module):
    """Up-sampling path; `extra_channels` widens the input of the transposed convolution at `extra_level`.

    Levels count from the bottleneck: 0 is the bottleneck, 1 the first decoder stage, and so on.
    """

    def __init__(self, spec: NetworkSpec, *, extra_channels: int = 0, extra_level: int = 0):
        super().__init__()
        widths, kernels, pools = spec.features, spec.conv_kernels_zyx, spec.pool_kernels_zyx
        self.extra_level = extra_level
        self.is_compiled_region = not (extra_channels and extra_level)  # what is asked for on the way differs by task
        self.up = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for depth, level in enumerate(range(len(pools) - 1, -1, -1)):
            below = widths[level + 1] + (extra_channels if depth == extra_level else 0)
            width = widths[level]
            self.up.append(nn.ConvTranspose3d(below, width, pools[level], pools[level], bias=False))
            self.blocks.append(
                nn.Sequential(
                    ConvBlock(2 * width, width, kernel_zyx=kernels[level + 1]),
                    ConvBlock(width, width, kernel_zyx=kernels[level + 1]),
                )
            )

    def forward(self, features: Sequence[Tensor], extra: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """Return features of every decoder stage, full resolution first; skips come from `features`.

        `extra` maps the features at `extra_level` to the channels that are appended to them.
        """
        x_BCZYX = features[-1]
        outputs = []
        for depth, (up, block, skip_BCZYX) in enumerate(
            zip(self.up, self.blocks, reversed(features[:-1]), strict=True)
        ):
            if extra is not None and depth == self.extra_level:
                x_BCZYX = torch.cat([x_BCZYX, extra(x_BCZYX)], dim=1)
            x_BCZYX = block(torch.cat([up(x_BCZYX), skip_BCZYX], dim=1))
            outputs.append(x_BCZYX)
        return outputs[::-1]


class DeepSupervisionHeads(nn.Module):
    """One 1x1x1 convolution without bias per decoder stage, full resolution first."""

    def __init__(self, spec: NetworkSpec, classes: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv3d(width, classes, 1, bias=False) for width in spec.features[:-1])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return `logits_BKZYX` at every decoder stage."""
        return [conv(x_BCZYX) for conv, x_BCZYX in zip(self.convs, features, strict=True)]


def initialise_weights(module: nn.Module) -> None:
    """Kaiming normal for LeakyReLU 0.01 and zero biases, as nnU-Net v1; apply with `Module.apply`."""
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
