"""PVT v2 B1 in three dimensions: a pyramid transformer with spatially reduced keys as the encoder of a U-Net."""

from __future__ import annotations

from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn

from models.blocks.attention import Attention, to_tokens, to_volume
from models.blocks.own_network import PerTaskModel, answers_of, coarser_heads, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "PVT v2 B1 (3D)",
    "kind": "single_task",
    "citation": "Wang et al., PVT v2: Improved Baselines with Pyramid Vision Transformer, Computational Visual Media "
    "2022",
    "url": "https://github.com/whai362/PVT",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "concept",
    "deviations": [
        "the two-dimensional classifier's stages carried over to volumes; the first embedding shrinks z by 2, y and x "
        "by 4",
        "a UNETR decoder on the four stages, which the paper does not define",
        "no stochastic depth; under the equal recipe SGD replaces the published AdamW",
    ],
    "channels": "any",
    "patch_multiple": [16, 32, 32],
    "options": {
        "deep_supervision": {
            "default": False,
            "help": "whether the coarser decoder stages answer too, which the original's do not",
            "labels": {True: "deep supervision"},
        }
    },
    "encoder_keys": ["network.stages."],
    "backbone": "own",
}

STEM_STRIDE_ZYX = (2, 4, 4)
DEPTH = 2
HEADS = (1, 2, 5, 8)  # each head is 64 wide at the base width 32
REDUCTIONS = (8, 4, 2, 1)  # stride of the convolution that shortens keys and values


class Block(nn.Module):
    """Attention to spatially reduced keys, then a network with a depth-wise 3x3x3 convolution inside."""

    def __init__(self, width: int, *, heads: int, reduction: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.reduce = None
        if reduction > 1:
            self.reduce = nn.Conv3d(width, width, reduction, stride=reduction)
            self.norm_reduced = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.depthwise = nn.Conv3d(4 * width, 4 * width, 3, padding=1, groups=4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, features_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape."""
        grid_zyx = features_BCZYX.shape[2:]
        tokens_BNC = to_tokens(features_BCZYX)
        context_BNC = normed_BNC = self.norm(tokens_BNC)
        if self.reduce is not None:
            context_BNC = self.norm_reduced(to_tokens(self.reduce(to_volume(normed_BNC, grid_zyx))))
        tokens_BNC = tokens_BNC + self.attention(normed_BNC, context_BNC)
        hidden_BCZYX = self.depthwise(to_volume(self.expand(self.norm_mlp(tokens_BNC)), grid_zyx))
        tokens_BNC = tokens_BNC + self.contract(nn.functional.gelu(to_tokens(hidden_BCZYX)))
        return to_volume(tokens_BNC, grid_zyx)


class Stage(nn.Module):
    """Overlapping embedding that shrinks the grid, transformer blocks, layer normalisation."""

    def __init__(self, inputs: int, width: int, *, stride_zyx: tuple[int, int, int], heads: int, reduction: int):
        super().__init__()
        z, y, x = stride_zyx
        kernel_zyx = (2 * z - 1, 2 * y - 1, 2 * x - 1)  # 7 for 4 and 3 for 2, as in the paper
        self.embed = nn.Conv3d(inputs, width, kernel_zyx, stride=stride_zyx, padding=(z - 1, y - 1, x - 1))
        self.norm_embed = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Block(width, heads=heads, reduction=reduction) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(width)

    def forward(self, features_BCZYX: Tensor) -> Tensor:
        """Return features on the smaller grid."""
        embedded = self.embed(features_BCZYX)
        grid_zyx = embedded.shape[2:]
        features_BCZYX = self.blocks(to_volume(self.norm_embed(to_tokens(embedded)), grid_zyx))
        return to_volume(self.norm(to_tokens(features_BCZYX)), grid_zyx)


class PyramidUNet(nn.Module):
    """Four pyramid stages, a decoder with skips, and a residual block on the image for the finest scale."""

    def __init__(self, *, channels: int, classes: int, base: int, deep_supervision: bool = False):
        super().__init__()
        widths = [2 * base * heads for heads in HEADS]
        strides = [STEM_STRIDE_ZYX, (2, 2, 2), (2, 2, 2), (2, 2, 2)]
        self.stages = nn.ModuleList(
            Stage(inputs, width, stride_zyx=stride, heads=heads, reduction=reduction)
            for inputs, width, stride, heads, reduction in zip(
                [channels, *widths[:-1]], widths, strides, HEADS, REDUCTIONS, strict=True
            )
        )
        targets = [base, *widths[:-1]]
        self.image = UnetrBasicBlock(3, channels, base, kernel_size=3, stride=1, norm_name="instance", res_block=True)
        self.ups = nn.ModuleList(
            UnetrUpBlock(
                3, width, target, kernel_size=3, upsample_kernel_size=stride, norm_name="instance", res_block=True
            )
            for width, target, stride in zip(widths, targets, strides, strict=True)
        )
        self.head = nn.Conv3d(base, classes, 1)
        self.coarser = coarser_heads(widths[:-1], classes, deep_supervision)

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first, then on the grids of the stages with deep supervision."""
        skips = [self.image(images_BCZYX)]
        features = images_BCZYX
        for part in self.stages:
            features = part(features)
            skips.append(features)
        decoded = [skips.pop()]
        for up, skip in zip(reversed(self.ups), reversed(skips), strict=True):
            decoded.append(up(decoded[-1], skip))
        return [self.head(decoded[-1]), *answers_of(self.coarser, decoded[-2:0:-1])]


def build(tasks: TaskSet, spec: NetworkSpec, *, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`; widths 64, 128, 320, 512 at the base width 32."""
    task = the_task(tasks)
    network = PyramidUNet(
        channels=task.num_channels,
        classes=task.num_classes,
        base=spec.base_features,
        deep_supervision=deep_supervision,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
