"""nnFormer: windowed attention in encoder and decoder, global attention at the bottleneck, skips by attention."""

from __future__ import annotations

from monai.networks.nets.swin_unetr import BasicLayer
from torch import Tensor, nn

from models.blocks.attention import AttentionBlock, to_tokens, to_volume, window_tokens, window_volume
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "nnFormer",
    "kind": "single_task",
    "citation": "Zhou et al., nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer, IEEE Transactions "
    "on Image Processing 2023",
    "url": "https://github.com/282857341/nnFormer",
    "licence": "Apache-2.0",
    "original_licence": "MIT",
    "version": "1",
    "fidelity": "concept",
    "deviations": [
        "windowed self-attention is MONAI's shifted-window layer, window 4x4x4",
        "the skip attention runs in unshifted windows, once per decoder stage",
        "first width 96 at the base width 32, heads 3, 6, 12, 24",
    ],
    "channels": "any",
    "patch_multiple": [16, 32, 32],
    "options": {},
    "encoder_keys": ["network.embed.", "network.encoder.", "network.shrink.", "network.bottleneck."],
    "backbone": "own",
}

STEM_STRIDE_ZYX = (2, 4, 4)
HEADS = (3, 6, 12, 24)
DEPTH = 2
WINDOW = 4


class ConvNorm(nn.Sequential):
    """Convolution, GELU and normalisation over a sample: one layer of the convolutional embedding."""

    def __init__(self, inputs: int, outputs: int, *, stride: tuple[int, int, int] = (1, 1, 1)):
        super().__init__(nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1), nn.GELU(), nn.GroupNorm(1, outputs))


class SkipAttention(nn.Module):
    """The decoder's features ask the encoder's features of the same window."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm_skip = nn.LayerNorm(width)
        self.block = AttentionBlock(width, heads)

    def forward(self, decoded_BCZYX: Tensor, skip_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape; windows shrink to the grid where it is smaller."""
        size_zyx = decoded_BCZYX.shape[2:]
        window_zyx = [WINDOW if size % WINDOW == 0 else size for size in size_zyx]
        skip_WNC = self.norm_skip(window_tokens(skip_BCZYX, window_zyx))
        tokens_WNC = self.block(window_tokens(decoded_BCZYX, window_zyx), skip_WNC)
        return window_volume(tokens_WNC, size_zyx, window_zyx)


class NNFormer(nn.Module):
    """Convolutional embedding, three windowed stages, a global one, three decoder stages with skip attention."""

    def __init__(self, *, channels: int, classes: int, width: int):
        super().__init__()
        widths = [width * 2**level for level in range(len(HEADS))]
        levels = range(len(HEADS) - 1)
        self.embed = nn.Sequential(
            ConvNorm(channels, width // 2, stride=(1, 2, 2)),
            ConvNorm(width // 2, width // 2),
            ConvNorm(width // 2, width, stride=(2, 2, 2)),
            ConvNorm(width, width),
        )
        self.encoder = nn.ModuleList(_windowed(widths[level], HEADS[level]) for level in levels)
        self.shrink = nn.ModuleList(ConvNorm(widths[level], widths[level + 1], stride=(2, 2, 2)) for level in levels)
        self.bottleneck = nn.ModuleList(AttentionBlock(widths[-1], HEADS[-1]) for _ in range(DEPTH))
        self.grow = nn.ModuleList(nn.ConvTranspose3d(widths[level + 1], widths[level], 2, stride=2) for level in levels)
        self.skips = nn.ModuleList(SkipAttention(widths[level], HEADS[level]) for level in levels)
        self.decoder = nn.ModuleList(_windowed(widths[level], HEADS[level]) for level in levels)
        self.heads = nn.ModuleList(nn.Conv3d(widths[level], classes, 1) for level in levels[1:])
        self.expand = nn.ConvTranspose3d(width, classes, STEM_STRIDE_ZYX, stride=STEM_STRIDE_ZYX)

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return logits at full resolution and, coarser, at the decoder's two lower stages."""
        features = self.embed(images_BCZYX)
        skips = []
        for attend, shrink in zip(self.encoder, self.shrink, strict=True):
            features = attend(features)
            skips.append(features)
            features = shrink(features)
        tokens_BNC = to_tokens(features)
        for block in self.bottleneck:
            tokens_BNC = block(tokens_BNC)
        features = to_volume(tokens_BNC, features.shape[2:])
        logits = []
        for level in reversed(range(len(skips))):
            features = self.decoder[level](self.skips[level](self.grow[level](features), skips[level]))
            logits.append(self.heads[level - 1](features) if level else self.expand(features))
        return logits[::-1]


def _windowed(width: int, heads: int) -> BasicLayer:
    return BasicLayer(
        dim=width, depth=DEPTH, num_heads=heads, window_size=(WINDOW,) * 3, drop_path=[0.0] * DEPTH, qkv_bias=True
    )


def build(tasks: TaskSet, spec: NetworkSpec) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    width = max(1, spec.base_features // 4) * 12  # three heads, and half of it in the embedding
    network = NNFormer(channels=task.num_channels, classes=task.num_classes, width=width)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
