"""3D UX-Net: Swin-like stages whose attention is replaced by 7x7x7 depth-wise convolutions."""

from __future__ import annotations

from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn

from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "3D UX-Net",
    "kind": "single_task",
    "citation": "Lee et al., 3D UX-Net: A Large Kernel Volumetric ConvNet Modernizing Hierarchical Transformer for "
    "Medical Image Segmentation, ICLR 2023",
    "url": "https://github.com/MASILab/3DUX-Net",
    "licence": "Apache-2.0",
    "original_licence": "MIT",
    "version": "1",
    "fidelity": "description",
    "deviations": [
        "no layer scale and no stochastic depth in the blocks",
        "trained with the harness's SGD recipe instead of AdamW",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {},
    "encoder_keys": ["network.stages."],
    "backbone": "own",
}

BLOCKS_PER_STAGE = 2
STAGES = 4


class ChannelNorm(nn.GroupNorm):
    """Layer normalisation over channels and space of one sample, for tensors with channels first."""

    def __init__(self, channels: int):
        super().__init__(1, channels)


class LargeKernelBlock(nn.Module):
    """Depth-wise 7x7x7 convolution, then a per-channel expansion by four and back, with a residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, channels, 7, padding=3, groups=channels),
            ChannelNorm(channels),
            nn.Conv3d(channels, 4 * channels, 1, groups=channels),
            nn.GELU(),
            nn.Conv3d(4 * channels, channels, 1, groups=channels),
        )

    def forward(self, features_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape."""
        return features_BCZYX + self.body(features_BCZYX)


def stage(inputs: int, outputs: int, *, first: bool) -> nn.Sequential:
    """Return a stage that halves the grid and runs its blocks; the first embeds the image by a 7x7x7 projection."""
    if first:
        shrink = [nn.Conv3d(inputs, outputs, 7, stride=2, padding=3)]
    else:
        shrink = [ChannelNorm(inputs), nn.Conv3d(inputs, outputs, 2, stride=2)]
    return nn.Sequential(*shrink, *(LargeKernelBlock(outputs) for _ in range(BLOCKS_PER_STAGE)), ChannelNorm(outputs))


class UXNet(nn.Module):
    """Four large-kernel stages, each skip refined by a residual block, and a UNETR decoder."""

    def __init__(self, *, channels: int, classes: int, width: int):
        super().__init__()
        widths = [width * 2**level for level in range(STAGES + 1)]  # the last is the bottleneck's
        self.stages = nn.ModuleList(
            stage(channels if level == 0 else widths[level - 1], widths[level], first=level == 0)
            for level in range(STAGES)
        )
        self.skips = nn.ModuleList(
            _residual(source, target) for source, target in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.ups = nn.ModuleList(
            UnetrUpBlock(
                spatial_dims=3,
                in_channels=widths[level + 1],
                out_channels=widths[level],
                kernel_size=3,
                upsample_kernel_size=2,
                norm_name="instance",
                res_block=True,
            )
            for level in range(STAGES)
        )
        self.last = _residual(width, width)
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, images_BCZYX: Tensor) -> Tensor:
        """Return `logits_BKZYX` at full resolution."""
        levels = [images_BCZYX]
        for part in self.stages:
            levels.append(part(levels[-1]))
        skips = [refine(features) for refine, features in zip(self.skips, levels, strict=True)]
        decoded = skips.pop()
        for up, skip in zip(reversed(self.ups), reversed(skips), strict=True):
            decoded = up(decoded, skip)
        return self.head(self.last(decoded))


def _residual(inputs: int, outputs: int) -> UnetrBasicBlock:
    return UnetrBasicBlock(
        spatial_dims=3,
        in_channels=inputs,
        out_channels=outputs,
        kernel_size=3,
        stride=1,
        norm_name="instance",
        res_block=True,
    )


def build(tasks: TaskSet, spec: NetworkSpec) -> PerTaskModel:
    """Return the network for the only task of `tasks`; first width 48 at the base width 32."""
    task = the_task(tasks)
    network = UXNet(channels=task.num_channels, classes=task.num_classes, width=spec.base_features * 3 // 2)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
