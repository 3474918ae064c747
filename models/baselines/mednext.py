"""MedNeXt as released: a U-Net of ConvNeXt-like blocks that also sample up and down.

Axis legend: B batch, C channel, K class, Z Y X space. Written from the facts of the released network (Roy et al.,
MICCAI 2023). Modules have the names of the released state dict, so that it loads as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import NORM_EPS
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from models.weights.official import Shape, check_arguments, count_of, kernel_zyx, majority, shapes_of
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error, suggestion
from segbench.core.task import TaskSet

CARD = {
    "title": "MedNeXt",
    "kind": "single_task",
    "citation": "Roy et al., MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation, "
    "MICCAI 2023",
    "url": "https://github.com/MIC-DKFZ/MedNeXt",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base; with base 32 they are the original's",
        "kernels of 5 are trained from scratch, without the up-sampling of smaller trained kernels",
        "under the equal recipe SGD replaces the published AdamW of learning rate 1e-3",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {
        "variant": {
            "default": "S",
            "help": "S, B, M or L, the sizes of the paper",
            "label": "{value}",
            "always_named": True,
        },
        "kernel_size": {
            "default": 3,
            "at_least": 1,
            "help": "edge of the depth-wise kernels, 3 or 5 in the paper",
            "label": "kernel {value}",
        },
    },
    "encoder_keys": ["network.stem.", "network.enc_block_", "network.down_", "network.bottleneck."],
    "backbone": "own",
    "published_recipe": {
        "source": "MIC-DKFZ/MedNeXt, nnunet_mednext/training/network_training/MedNeXt/nnUNetTrainerV2_MedNeXt.py",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.001,
            "epsilon": 0.0001,
            "weight_decay": 3e-05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "gradient_clip": 12.0,
        },
        "not_taken": ["the learning rate changes once per epoch there, per step here"],
    },
}
OFFICIAL = "mednext_official"
WHERE = "official MedNeXt weights"
POOLINGS = 4
GRN_EPS = 1e-6
PLACES = 2 * POOLINGS + 1  # encoder stages, bottleneck, decoder stages: one expansion and one count of blocks each

# variant: expansion ratio and number of blocks, encoder stages first, bottleneck last; the decoder mirrors them
VARIANTS = {
    "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": ((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": ((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


class VoxelNorm(nn.LayerNorm):
    """Layer norm over the channels at each voxel, for tensors with channels first."""

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the normalised features."""
        return super().forward(x_BCZYX.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Depth-wise convolution, norm, expansion by a ratio, GELU and back, with a residual.

    The norm is that of each channel over space, or of each voxel over channels when `norm` is layer. With `grn` the
    expanded features pass a global response normalisation (Woo et al., ConvNeXt V2, CVPR 2023).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        ratio: int,
        kernel: int,
        residual: bool,
        norm: str = "group",
        grn: bool = False,
    ):
        super().__init__()
        self.residual = residual
        self.conv1 = self.depthwise(inputs, kernel)
        self.norm = VoxelNorm(inputs, eps=NORM_EPS) if norm == "layer" else nn.GroupNorm(inputs, inputs, eps=NORM_EPS)
        self.conv2 = nn.Conv3d(inputs, ratio * inputs, 1)
        self.conv3 = nn.Conv3d(ratio * inputs, outputs, 1)
        self.grn = grn
        if grn:
            self.grn_beta = nn.Parameter(torch.zeros(1, ratio * inputs, 1, 1, 1))
            self.grn_gamma = nn.Parameter(torch.zeros(1, ratio * inputs, 1, 1, 1))

    @staticmethod
    def depthwise(channels: int, kernel: int) -> nn.Module:
        """Return the first convolution, which decides on the grid of the result."""
        return nn.Conv3d(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def change(self, x_BCZYX: Tensor) -> Tensor:
        """Return what the block adds to its shortcut."""
        wide_BCZYX = functional.gelu(self.conv2(self.norm(self.conv1(x_BCZYX))))
        if self.grn:
            response_BC111 = wide_BCZYX.norm(p=2, dim=(2, 3, 4), keepdim=True)
            relative_BC111 = response_BC111 / (response_BC111.mean(dim=1, keepdim=True) + GRN_EPS)
            wide_BCZYX = self.grn_gamma * (wide_BCZYX * relative_BC111) + self.grn_beta + wide_BCZYX
        return self.conv3(wide_BCZYX)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape."""
        change_BCZYX = self.change(x_BCZYX)
        return x_BCZYX + change_BCZYX if self.residual else change_BCZYX


class DownBlock(Block):
    """The block with stride 2; its shortcut is a strided convolution of 1x1x1."""

    def __init__(self, inputs: int, outputs: int, *, residual: bool, **options: Any):
        super().__init__(inputs, outputs, residual=residual, **options)
        if residual:
            self.res_conv = self.shortcut(inputs, outputs)

    @staticmethod
    def depthwise(channels: int, kernel: int) -> nn.Module:
        """Return a convolution of stride 2."""
        return nn.Conv3d(channels, channels, kernel, stride=2, padding=kernel // 2, groups=channels)

    @staticmethod
    def shortcut(inputs: int, outputs: int) -> nn.Module:
        """Return the convolution of the shortcut."""
        return nn.Conv3d(inputs, outputs, 1, stride=2)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features on half the grid."""
        change_BCZYX = self.change(x_BCZYX)
        return self.res_conv(x_BCZYX) + change_BCZYX if self.residual else change_BCZYX


class UpBlock(DownBlock):
    """The block with a transposed convolution of stride 2.

    That gives 2n - 1 voxels for n; a plane of zeros at the low end of each axis makes 2n, after all else is computed.
    """

    @staticmethod
    def depthwise(channels: int, kernel: int) -> nn.Module:
        """Return a transposed convolution of stride 2."""
        return nn.ConvTranspose3d(channels, channels, kernel, stride=2, padding=kernel // 2, groups=channels)

    @staticmethod
    def shortcut(inputs: int, outputs: int) -> nn.Module:
        """Return the convolution of the shortcut: the input at every second voxel, the bias alone between them."""
        return nn.ConvTranspose3d(inputs, outputs, 1, stride=2)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features on twice the grid."""
        return functional.pad(super().forward(x_BCZYX), (1, 0) * 3)


class Head(nn.Module):
    """The logits of one stage: a transposed convolution of 1x1x1, as the original has it."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.conv_out = nn.ConvTranspose3d(width, classes, 1)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return `logits_BKZYX`."""
        return self.conv_out(x_BCZYX)


class MedNeXt(nn.Module):
    """Encoder, bottleneck and decoder of these blocks; skips are added.

    Args:
        channels, classes: of the image and of the logits.
        width: of the first stage; it doubles four times.
        ratios, blocks: nine each: encoder stages, bottleneck, decoder stages from the coarsest. A block that changes
            the grid has the ratio of the stage that it enters.
        encoder_kernel, decoder_kernel: edges of the depth-wise kernels; the bottleneck belongs to the decoder.
        residual: whether the blocks that keep the grid have a shortcut; resampling_residual: the others.
        norm: group or layer; grn: whether the blocks have a global response normalisation.
        deep_supervision: whether the coarser decoder stages and the bottleneck answer too.
        released: whether to hold the tensor of the released weights that nothing reads.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        width: int,
        ratios: Sequence[int],
        blocks: Sequence[int],
        encoder_kernel: int = 3,
        decoder_kernel: int = 3,
        residual: bool = True,
        resampling_residual: bool = True,
        norm: str = "group",
        grn: bool = False,
        deep_supervision: bool = True,
        released: bool = False,
    ):
        super().__init__()
        kind = {"norm": norm, "grn": grn}
        widths = [width * 2**stage for stage in range(POOLINGS + 1)]

        def stage(place: int, features: int, kernel: int) -> nn.Sequential:
            options: dict[str, Any] = {"ratio": ratios[place], "kernel": kernel, "residual": residual, **kind}
            return nn.Sequential(*(Block(features, features, **options) for _ in range(blocks[place])))

        self.stem = nn.Conv3d(channels, width, 1)
        for level in range(POOLINGS):
            self.add_module(f"enc_block_{level}", stage(level, widths[level], encoder_kernel))
            down = DownBlock(
                widths[level],
                widths[level + 1],
                ratio=ratios[level + 1],
                kernel=encoder_kernel,
                residual=resampling_residual,
                **kind,
            )
            self.add_module(f"down_{level}", down)
        self.bottleneck = stage(POOLINGS, widths[POOLINGS], decoder_kernel)
        for level in reversed(range(POOLINGS)):
            place = PLACES - 1 - level
            up = UpBlock(
                widths[level + 1],
                widths[level],
                ratio=ratios[place],
                kernel=decoder_kernel,
                residual=resampling_residual,
                **kind,
            )
            self.add_module(f"up_{level}", up)
            self.add_module(f"dec_block_{level}", stage(place, widths[level], decoder_kernel))
        self.heads = POOLINGS + 1 if deep_supervision else 1
        for level in range(self.heads):
            self.add_module(f"out_{level}", Head(widths[level], classes))
        if released:
            self.dummy_tensor = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first, the bottleneck's last."""
        skips = []
        x_BCZYX = self.stem(images_BCZYX)
        for level in range(POOLINGS):
            skips.append(self.get_submodule(f"enc_block_{level}")(x_BCZYX))
            x_BCZYX = self.get_submodule(f"down_{level}")(skips[-1])
        features = [self.bottleneck(x_BCZYX)]
        for level in reversed(range(POOLINGS)):
            x_BCZYX = skips.pop() + self.get_submodule(f"up_{level}")(features[-1])
            features.append(self.get_submodule(f"dec_block_{level}")(x_BCZYX))
        finest_first = features[::-1]
        return [self.get_submodule(f"out_{level}")(finest_first[level]) for level in range(self.heads)]


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> MedNeXt:
    """Return the network with these weights, in evaluation mode; it answers as the original does.

    Args:
        state_dict: of the released network (version 1); it may be wrapped in a checkpoint.
        arch: arguments of the original's constructor. Only `do_res` (on when absent) and `norm_type` (group when
            absent) follow from no shape.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for an argument that asks for another network.
    """
    check_arguments(arch, WHERE, norm_type=("group", "layer"), dim="3d", do_res=(True, False))
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)
    encoder = [f"enc_block_{level}" for level in range(POOLINGS)]
    decoder = [f"dec_block_{level}" for level in reversed(range(POOLINGS))]
    places = [*encoder, "bottleneck", *decoder]
    width = majority(
        shapes, ["stem.bias", "stem.weight", "down_0.norm.weight", "down_0.norm.bias"], outputs_of, where=WHERE
    )
    depthwise = [f"{place}.0.conv1.weight" for place in ["bottleneck", *decoder]]
    network = MedNeXt(
        channels=majority(shapes, ["stem.weight"], inputs_of, where=WHERE),
        classes=majority(
            shapes, [f"out_{level}.conv_out.bias" for level in range(POOLINGS + 1)], outputs_of, where=WHERE
        ),
        width=width,
        ratios=[
            _ratio(shapes, place, width * 2 ** min(number, PLACES - 1 - number)) for number, place in enumerate(places)
        ],
        blocks=[count_of(shapes, rf"{place}\.(\d{{1,3}})\.") for place in places],
        encoder_kernel=_edge(shapes, [f"{place}.0.conv1.weight" for place in encoder]),
        decoder_kernel=_edge(shapes, depthwise),
        residual=bool(arch.get("do_res", True)),
        resampling_residual=any(re.match(r"(down|up)_\d\.res_conv\.", name) for name in shapes),
        norm=str(arch.get("norm_type", "group")),
        grn=any(name.endswith(".grn_gamma") for name in shapes),
        deep_supervision=any(re.match(r"out_[1-9]\.", name) for name in shapes),
        released=True,
    )
    load_strictly(network, state, WHERE)
    return network.eval()


def _ratio(shapes: Mapping[str, Shape], place: str, width: int) -> int:
    """Return the expansion of a stage's blocks: how many times wider than the stage their inner features are."""
    names = [name for name in shapes if re.match(rf"{place}\.\d+\.(conv2\.weight|conv2\.bias|conv3\.weight)$", name)]
    return majority(shapes, names or [f"{place}.0.conv2.weight"], _widest, where=WHERE) // width


def _widest(shape: Shape) -> int:
    return max(shape[:2])


def _edge(shapes: Mapping[str, Shape], names: Sequence[str]) -> int:
    """Return the edge of the depth-wise kernels, which have the same edge on every axis."""
    return majority(shapes, names, kernel_zyx, where=WHERE)[0]


def build(tasks: TaskSet, spec: NetworkSpec, *, variant: str = "S", kernel_size: int = 3) -> PerTaskModel:
    """Return the network for the only task of `tasks`; an unknown variant or an even kernel raises `InputError`."""
    task = the_task(tasks)
    if variant not in VARIANTS:
        raise input_error(
            "option variant of mednext", found=variant, expected="S, B, M or L", fix=suggestion(variant, VARIANTS)
        )
    if kernel_size % 2 == 0:
        raise input_error(
            "option kernel_size of mednext", found=kernel_size, expected="an odd number", fix="use 3 or 5"
        )
    ratios, blocks = VARIANTS[variant]
    network = MedNeXt(
        channels=task.num_channels,
        classes=task.num_classes,
        width=spec.base_features,
        ratios=[*ratios, *ratios[-2::-1]],
        blocks=[*blocks, *blocks[-2::-1]],
        encoder_kernel=kernel_size,
        decoder_kernel=kernel_size,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
