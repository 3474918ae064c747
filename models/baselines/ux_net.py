"""3D UX-Net as released: stages of 7x7x7 depth-wise convolutions as the encoder of a UNETR decoder.

Axis legend: B batch, C channel, K class, Z Y X space. Written from the facts of the released network (Lee et al., ICLR
2023). Modules have the names of the released state dict, so that it loads as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.own_network import PerTaskModel, answers_of, coarser_heads, the_task
from models.interface import NetworkSpec
from models.weights.official import check_arguments, count_of, majority, shapes_of
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.task import TaskSet

CARD = {
    "title": "3D UX-Net",
    "kind": "single_task",
    "citation": "Lee et al., 3D UX-Net: A Large Kernel Volumetric ConvNet Modernizing Hierarchical Transformer for "
    "Medical Image Segmentation, ICLR 2023",
    "url": "https://github.com/MASILab/3DUX-Net",
    "licence": "Apache-2.0",
    "original_licence": "MIT by its README, without a licence file",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base; with base 32 they are the original's 48, 96, 192, 384 and 768",
        "input sizes that are no multiple of 16 are padded by their border and cropped back",
        "under the equal recipe SGD replaces the published AdamW of learning rate 5e-4",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {
        "deep_supervision": {
            "default": False,
            "help": "whether the coarser decoder stages answer too, which the original's do not",
            "labels": {True: "deep supervision"},
        }
    },
    "encoder_keys": ["network.uxnet_3d."],
    "backbone": "own",
    "published_recipe": {
        "source": "MIC-DKFZ/MedNeXt, "
        "nnunet_mednext/training/network_training/nnUNet_variants/baselines/nnUNetTrainerV2_3DUXNet.py, a "
        "port by the authors of MedNeXt",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0005,
            "epsilon": 0.0001,
            "weight_decay": 3e-05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "gradient_clip": 12.0,
        },
        "not_taken": [
            "the learning rate changes once per epoch there, per step here",
            "its own authors' main_train.py: AdamW, by default 1e-4, constant, without a clip",
        ],
    },
}
OFFICIAL = "uxnet3d_official"
WHERE = "official 3D UX-Net weights"
DEPTHS = (2, 2, 2, 2)
LAYER_SCALE = 1e-6  # initial value of gamma


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels at each voxel, for tensors with channels first."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the normalised features."""
        return super().forward(x_BCZYX.movedim(1, -1)).movedim(-1, 1)


class LargeKernelBlock(nn.Module):
    """Depth-wise 7x7x7 convolution, norm, an expansion of each channel by four and back, scaled, with a residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv3d(channels, channels, 7, padding=3, groups=channels)
        self.norm = ChannelNorm(channels)
        self.pwconv1 = nn.Conv3d(channels, 4 * channels, 1, groups=channels)
        self.pwconv2 = nn.Conv3d(4 * channels, channels, 1, groups=channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape; channels are never mixed."""
        change_BCZYX = self.pwconv2(functional.gelu(self.pwconv1(self.norm(self.dwconv(x_BCZYX)))))
        return x_BCZYX + self.gamma.view(-1, 1, 1, 1) * change_BCZYX


class Encoder(nn.Module):
    """Four stages, each at half the grid of the one before; a stage's result is normalised for the decoder only."""

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int]):
        super().__init__()
        stem = nn.Sequential(nn.Conv3d(channels, widths[0], 7, stride=2, padding=3), ChannelNorm(widths[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for before, width in itertools.pairwise(widths):
            self.downsample_layers.append(nn.Sequential(ChannelNorm(before), nn.Conv3d(before, width, 2, stride=2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(LargeKernelBlock(width) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        for number, width in enumerate(widths):
            self.add_module(f"norm{number}", ChannelNorm(width))

    def forward(self, x_BCZYX: Tensor) -> list[Tensor]:
        """Return the normalised features of every stage, finest first."""
        features = []
        for number, (shrink, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x_BCZYX = stage(shrink(x_BCZYX))
            features.append(self.get_submodule(f"norm{number}")(x_BCZYX))
        return features


class UXNet(nn.Module):
    """Encoder, a residual block on the image and on each stage, and a decoder that concatenates them."""

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        widths: Sequence[int] = (48, 96, 192, 384),
        hidden: int = 768,
        depths: Sequence[int] = DEPTHS,
        residual: bool = True,
        deep_supervision: bool = False,
    ):
        super().__init__()
        w0, w1, w2, w3 = widths
        self.uxnet_3d = Encoder(channels, widths, depths)
        self.encoder1 = _block(channels, w0, residual=residual)
        self.encoder2 = _block(w0, w1, residual=residual)
        self.encoder3 = _block(w1, w2, residual=residual)
        self.encoder4 = _block(w2, w3, residual=residual)
        self.encoder5 = _block(w3, hidden, residual=residual)
        self.decoder5 = _up(hidden, w3, residual=residual)
        self.decoder4 = _up(w3, w2, residual=residual)
        self.decoder3 = _up(w2, w1, residual=residual)
        self.decoder2 = _up(w1, w0, residual=residual)
        self.decoder1 = _block(w0, w0, residual=residual)
        self.out = UnetOutBlock(3, w0, classes)
        self.coarser = coarser_heads([w1, w2, w3], classes, deep_supervision)

    def forward(self, images_BCZYX: Tensor) -> Tensor | list[Tensor]:
        """Return `logits_BKZYX` at full resolution; with deep supervision a list, then strides 2, 4 and 8."""
        stage0, stage1, stage2, stage3 = self.uxnet_3d(images_BCZYX)
        decoded = [self.decoder5(self.encoder5(stage3), self.encoder4(stage2))]
        decoded.append(self.decoder4(decoded[-1], self.encoder3(stage1)))
        decoded.append(self.decoder3(decoded[-1], self.encoder2(stage0)))
        logits = self.out(self.decoder1(self.decoder2(decoded[-1], self.encoder1(images_BCZYX))))
        return [logits, *answers_of(self.coarser, reversed(decoded))] if self.coarser else logits


def _block(inputs: int, outputs: int, *, residual: bool) -> UnetrBasicBlock:
    return UnetrBasicBlock(3, inputs, outputs, kernel_size=3, stride=1, norm_name="instance", res_block=residual)


def _up(inputs: int, outputs: int, *, residual: bool) -> UnetrUpBlock:
    return UnetrUpBlock(
        3, inputs, outputs, kernel_size=3, upsample_kernel_size=2, norm_name="instance", res_block=residual
    )


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> UXNet:
    """Return the network with these weights, in evaluation mode.

    Args:
        state_dict: of the released network; it may be wrapped in a checkpoint.
        arch: arguments of the original's constructor. Shapes tell all sizes; the rest has to be as released.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for an argument that asks for another network.
    """
    check_arguments(arch, WHERE, norm_name="instance", conv_block=True, spatial_dims=3)
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)
    stage = "uxnet_3d.stages"
    ends = ("gamma", "dwconv.weight", "dwconv.bias", "norm.weight", "norm.bias")
    network = UXNet(
        channels=majority(
            shapes,
            ["uxnet_3d.downsample_layers.0.0.weight", "encoder1.layer.conv1.conv.weight"],
            inputs_of,
            where=WHERE,
        ),
        classes=majority(shapes, ["out.conv.conv.weight", "out.conv.conv.bias"], outputs_of, where=WHERE),
        widths=[
            majority(shapes, [f"{stage}.{number}.0.{end}" for end in ends], outputs_of, where=WHERE)
            for number in range(4)
        ],
        hidden=majority(
            shapes, [f"encoder5.layer.conv{number}.conv.weight" for number in (1, 2, 3)], outputs_of, where=WHERE
        ),
        residual=any(".conv3." in name for name in shapes),
        depths=[count_of(shapes, rf"{stage}\.{number}\.(\d{{1,3}})\.") for number in range(4)],
    )
    load_strictly(network, state, WHERE)
    return network.eval()


def build(tasks: TaskSet, spec: NetworkSpec, *, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`; first width 48 at the base width 32."""
    task = the_task(tasks)
    width = spec.base_features * 3 // 2
    network = UXNet(
        channels=task.num_channels,
        classes=task.num_classes,
        widths=[width * 2**level for level in range(4)],
        hidden=16 * width,
        deep_supervision=deep_supervision,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
