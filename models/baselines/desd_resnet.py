"""The 3D ResNet of DeSD as the encoder of a U-shaped network, to initialise a downstream run with its released weights.

Axis legend: B batch, C channel, K class, Z Y X space. The encoder is written from the facts of the released network (Ye
et al., MICCAI 2022), and its modules have the names of the released state dict, so that it loads as it is. The decoder
is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import LEAKY_SLOPE, NORM_EPS, ConvBlock, Triple, initialise_weights
from models.blocks.instance_norm import InstanceNorm
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from models.weights.official import Shape, check_arguments, count_of, majority, shapes_of
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error
from segbench.core.task import TaskSet

CARD = {
    "title": "DeSD ResNet",
    "kind": "single_task",
    "citation": "Ye et al., DeSD: Self-Supervised Learning with Deep Self-Distillation for 3D Medical Image "
    "Segmentation, MICCAI 2022",
    "url": "https://github.com/yeerwen/DeSD",
    "licence": "Apache-2.0",
    "original_licence": "BSD-like, for non-commercial purposes",
    "fidelity": "description",
    "deviations": [
        "the encoder agrees with the outputs of the original; the decoder is ours, because the repository has none: "
        "transposed convolutions, skips from every stage, two convolutions as in nnU-Net, deep supervision",
        "widths follow the config's base; with base 32 they are the original's",
        "without released weights unless an initialisation brings them",
    ],
    "channels": "any",
    "patch_multiple": [16, 32, 32],
    "options": {"depth": {"default": 50, "help": "18 or 50 layers", "label": "{value} layers", "always_named": True}},
    "encoder_keys": ["network.encoder."],
    "backbone": "own",
}
OFFICIAL = "desd_resnet_official"
WHERE = "official DeSD encoder weights"
DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}  # residual blocks per stage; from 50 on they are bottlenecks
STAGES = 4
STANDARDISATION_EPS = 1e-10
GROUPS = 16  # of its group norm
EXPANSION = 4  # outputs of a bottleneck block per inner channel
POOLS_ZYX: tuple[Triple, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


class StandardisedConv(nn.Conv3d):
    """Bias-free convolution whose weight has zero mean and unit variance per output channel."""

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the convolution with the standardised weight."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3, 4), keepdim=True, correction=0)
        weight = (self.weight - mean) / (variance + STANDARDISATION_EPS).sqrt()
        return functional.conv3d(x_BCZYX, weight, None, self.stride, self.padding)


@dataclass(frozen=True)
class Layers:
    """What the encoder is made of; the defaults are what was released.

    slope: of the LeakyReLU; 0 makes it a ReLU. groups: of group norm; none makes it instance norm. standardised:
    whether the weights of convolutions are standardised.
    """

    slope: float = LEAKY_SLOPE
    groups: int | None = None
    standardised: bool = False

    def convolution(self, inputs: int, outputs: int, edge: int, stride: int | Triple = 1) -> nn.Conv3d:
        """Return a convolution without bias that keeps the size up to its stride."""
        kind = StandardisedConv if self.standardised else nn.Conv3d
        return kind(inputs, outputs, edge, stride, edge // 2, bias=False)

    def norm(self, width: int) -> nn.Module:
        """Return a norm with weight and bias."""
        if self.groups is None:
            return InstanceNorm(width, eps=NORM_EPS, affine=True)
        return nn.GroupNorm(self.groups, width, eps=NORM_EPS)

    def activation(self) -> nn.Module:
        """Return the activation."""
        return nn.LeakyReLU(self.slope)


RELEASED = Layers()


class _ResidualBlock(nn.Module):
    """Convolutions with norms, then the shortcut, then the activation."""

    def __init__(self, inputs: int, outputs: int, layers: Layers, *, stride: int, project: bool):
        super().__init__()
        self.activation = layers.activation()
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(layers.convolution(inputs, outputs, 1, stride), layers.norm(outputs))

    def body(self, x_BCZYX: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of `outputs` channels."""
        shortcut = x_BCZYX if self.downsample is None else self.downsample(x_BCZYX)
        return self.activation(self.body(x_BCZYX) + shortcut)


class BasicBlock(_ResidualBlock):
    """Two convolutions of 3x3x3; the stride is in the first."""

    def __init__(self, inputs: int, width: int, layers: Layers, *, stride: int = 1, project: bool = False):
        super().__init__(inputs, width, layers, stride=stride, project=project)
        self.conv1 = layers.convolution(inputs, width, 3, stride)
        self.norm1 = layers.norm(width)
        self.conv2 = layers.convolution(width, width, 3)
        self.norm2 = layers.norm(width)

    def body(self, x_BCZYX: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        return self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x_BCZYX)))))


class BottleneckBlock(_ResidualBlock):
    """1x1x1, 3x3x3 and 1x1x1 to four times the width; the stride is in the second."""

    def __init__(self, inputs: int, width: int, layers: Layers, *, stride: int = 1, project: bool = False):
        super().__init__(inputs, EXPANSION * width, layers, stride=stride, project=project)
        self.conv1 = layers.convolution(inputs, width, 1)
        self.norm1 = layers.norm(width)
        self.conv2 = layers.convolution(width, width, 3, stride)
        self.norm2 = layers.norm(width)
        self.conv3 = layers.convolution(width, EXPANSION * width, 1)
        self.norm3 = layers.norm(EXPANSION * width)

    def body(self, x_BCZYX: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        x_BCZYX = self.activation(self.norm1(self.conv1(x_BCZYX)))
        return self.norm3(self.conv3(self.activation(self.norm2(self.conv2(x_BCZYX)))))


class Encoder(nn.Module):
    """Stem and four residual stages, at strides (1, 2, 2), then (2, 4, 4) to (16, 32, 32).

    Args:
        channels: of the image.
        stem: width of the first convolution.
        widths: inner width of the blocks of each stage.
        blocks: number of blocks of each stage; the first has a convolution as its shortcut.
        bottleneck: whether the blocks are bottlenecks, which give four times their inner width.
        layers: what all of it is made of.
    """

    def __init__(
        self,
        *,
        channels: int,
        stem: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        bottleneck: bool = True,
        layers: Layers = RELEASED,
    ):
        super().__init__()
        block = BottleneckBlock if bottleneck else BasicBlock
        expansion = EXPANSION if bottleneck else 1
        self.widths = [stem, *(expansion * width for width in widths)]
        self.conv1 = layers.convolution(channels, stem, 7, (1, 2, 2))
        self.norm1 = layers.norm(stem)
        self.activation = layers.activation()
        for number, (before, width, count) in enumerate(zip(self.widths[:-1], widths, blocks, strict=True)):
            first = block(before, width, layers, stride=1 if number == 0 else 2, project=True)
            others = (block(expansion * width, width, layers) for _ in range(count - 1))
            self.add_module(f"layer{number + 1}", nn.Sequential(first, *others))

    def features(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the features of the stem and of the four stages."""
        features = [self.activation(self.norm1(self.conv1(images_BCZYX)))]
        x_BCZYX = functional.max_pool3d(features[0], 3, 2, 1)
        for number in range(STAGES):
            x_BCZYX = self.get_submodule(f"layer{number + 1}")(x_BCZYX)
            features.append(x_BCZYX)
        return features

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the spatial means (B, C) of the four stages, as the original does, then their features."""
        stages = self.features(images_BCZYX)[1:]
        return [*(x_BCZYX.mean(dim=(2, 3, 4)) for x_BCZYX in stages), *stages]


class ResNetUNet(nn.Module):
    """The encoder, and a decoder that answers at every resolution.

    Args:
        encoder: gives the skips.
        classes: of the logits.
        widths: of the decoder's stages, full resolution first.
    """

    def __init__(self, encoder: Encoder, *, classes: int, widths: Sequence[int]):
        super().__init__()
        self.encoder = encoder
        self.up = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.heads = nn.ModuleList(nn.Conv3d(width, classes, 1, bias=False) for width in widths)
        below = encoder.widths[-1]
        for level in reversed(range(len(widths))):
            width = widths[level]
            skip = encoder.widths[level - 1] if level else 0
            self.up.append(nn.ConvTranspose3d(below, width, POOLS_ZYX[level], POOLS_ZYX[level], bias=False))
            self.blocks.append(nn.Sequential(ConvBlock(width + skip, width), ConvBlock(width, width)))
            below = width

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first, down to stride (8, 16, 16)."""
        *skips, x_BCZYX = self.encoder.features(images_BCZYX)
        decoded = []
        for up, block in zip(self.up, self.blocks, strict=True):
            x_BCZYX = up(x_BCZYX)
            x_BCZYX = block(torch.cat([x_BCZYX, skips.pop()], dim=1) if skips else x_BCZYX)
            decoded.append(x_BCZYX)
        return [head(x_BCZYX) for head, x_BCZYX in zip(self.heads, decoded[::-1], strict=True)]


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> Encoder:
    """Return the encoder with these weights, in evaluation mode.

    Args:
        state_dict: of the released encoder; it may be wrapped in a checkpoint.
        arch: arguments of the original's constructor. Shapes tell all sizes; `activation_cfg`, `norm_cfg` and
            `weight_std` are as released when absent: LeakyReLU, instance norm, plain weights.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for an argument that asks for another network.
    """
    check_arguments(
        arch,
        WHERE,
        shortcut_type="B",
        norm_cfg=("IN", "IN3", "GN"),
        activation_cfg=("LeakyReLU", "ReLU"),
        weight_std=(False, True),
    )
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)
    places = [f"layer{number + 1}" for number in range(STAGES)]
    encoder = Encoder(
        channels=majority(shapes, ["conv1.weight"], inputs_of, where=WHERE),
        stem=majority(shapes, ["norm1.weight", "norm1.bias", "conv1.weight"], outputs_of, where=WHERE),
        widths=[_width(shapes, place) for place in places],
        blocks=[count_of(shapes, rf"{place}\.(\d{{1,3}})\.") for place in places],
        bottleneck=any(".conv3." in name or ".norm3." in name for name in shapes),
        layers=Layers(
            slope=0.0 if arch.get("activation_cfg") == "ReLU" else LEAKY_SLOPE,
            groups=GROUPS if arch.get("norm_cfg") == "GN" else None,
            standardised=bool(arch.get("weight_std")),
        ),
    )
    load_strictly(encoder, state, WHERE)
    return encoder.eval()


def _width(shapes: Mapping[str, Shape], place: str) -> int:
    """Return the inner width of a stage's blocks."""
    ends = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
    return majority(shapes, [f"{place}.0.{end}" for end in ends], outputs_of, where=WHERE)


def build(tasks: TaskSet, spec: NetworkSpec, *, depth: int = 50) -> PerTaskModel:
    """Return the network for the only task of `tasks`; a depth other than 18 and 50 raises `InputError`."""
    task = the_task(tasks)
    if depth not in DEPTHS:
        raise input_error("option depth of desd_resnet", found=depth, expected="18 or 50", fix="choose one of them")
    width = 2 * spec.base_features
    encoder = Encoder(
        channels=task.num_channels,
        stem=width,
        widths=[width * 2**stage for stage in range(STAGES)],
        blocks=DEPTHS[depth],
        bottleneck=depth >= 50,
    )
    decoder_widths = [width // 2, width, width, 2 * width, 4 * width]
    network = ResNetUNet(encoder, classes=task.num_classes, widths=decoder_widths)
    network.apply(initialise_weights)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
