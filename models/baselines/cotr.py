"""CoTr: a convolutional U-Net whose deep scales attend to each other by deformable attention.

Axis legend: B batch, N token, H heads, S scales, P points, C channel, Z Y X space.
"""

from __future__ import annotations

import math

import torch
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from models.blocks.attention import mlp, to_tokens, to_volume
from models.blocks.instance_norm import InstanceNorm
from models.blocks.own_network import PerTaskModel, the_task
from models.blocks.placement import on_device
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "CoTr",
    "kind": "single_task",
    "citation": "Xie et al., CoTr: Efficiently Bridging CNN and Transformer for 3D Medical Image Segmentation, "
    "MICCAI 2021",
    "url": "https://github.com/YtongXie/CoTr",
    "licence": "Apache-2.0",
    "original_licence": "none stated where we looked",
    "fidelity": "concept",
    "deviations": [
        "encoder and decoder are the residual encoder and decoder of nnU-Net's block library, sized by the experiment",
        "the transformer's output is added to the encoder's features of the three deepest scales",
        "hidden width 384 at the base width 32, 6 heads, 4 points, 6 layers by default; no dropout",
        "offsets start in the directions of the original; a zero offset is the centre of the token's cell, and what "
        "lies outside of the volume is read at its border",
        "under the equal recipe the learning rate is that of all models; published by others is AdamW 5e-4",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {"layers": {"at_least": 1, "default": 6, "help": "deformable attention layers"}},
    "encoder_keys": ["network.encoder.", "network.transformer."],
    "backbone": "own",
    "published_recipe": {
        "source": "MIC-DKFZ/MedNeXt, "
        "nnunet_mednext/training/network_training/nnUNet_variants/baselines/nnUNetTrainerV2_CoTr.py, a "
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
        "not_taken": ["the learning rate changes once per epoch there, per step here"],
    },
}

HEADS = 6
POINTS = 4
SCALES = 3


def centres(grid_zyx: torch.Size, device: torch.device) -> Tensor:
    """Return the centre of each grid cell, `centres_N3` in x, y, z order within -1..1 as `grid_sample` wants it."""
    axes = [(torch.arange(size, device=device) * 2 + 1) / size - 1 for size in grid_zyx]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2).flip(-1)


def sinusoids(centres_N3: Tensor, width: int) -> Tensor:
    """Return `positions_NC`: sines and cosines of each coordinate at doubling frequencies; width a multiple of 6."""
    frequencies = math.pi / 2 * 2.0 ** torch.arange(width // 6, device=centres_N3.device)
    angles_N3F = centres_N3[..., None] * frequencies
    return torch.cat([angles_N3F.sin(), angles_N3F.cos()], dim=-1).flatten(1)


def directions() -> Tensor:
    """Return `directions_H3` in x, y, z: (cos t, sin t cos t, sin t sin t), the largest part of each 1 or -1."""
    angles_H = torch.arange(HEADS) * (2 * math.pi / HEADS)
    cosines_H, sines_H = angles_H.cos(), angles_H.sin()
    directions_H3 = torch.stack([cosines_H, sines_H * cosines_H, sines_H * sines_H], dim=-1)
    return directions_H3 / directions_H3.abs().amax(dim=-1, keepdim=True)


class DeformableAttention(nn.Module):
    """Each token reads a few learned points of every scale around its own position."""

    def __init__(self, width: int, scales: int):
        super().__init__()
        self.scales = scales
        self.offsets = nn.Linear(width, HEADS * scales * POINTS * 3)
        self.weights = nn.Linear(width, HEADS * scales * POINTS)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let each head look in a direction of its own, its points one, two, ... cells away, all with equal weight."""
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        distances_P = torch.arange(1, POINTS + 1)
        offsets_HSP3 = (directions()[:, None, None] * distances_P[:, None]).expand(-1, self.scales, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets_HSP3.flatten())

    def forward(self, queries_BNC: Tensor, tokens_BNC: Tensor, centres_N3: Tensor, grids: list[torch.Size]) -> Tensor:
        """Return `BNC`; offsets are counted in cells of the scale that is read."""
        batch, count, _ = queries_BNC.shape
        shape = (batch, count, HEADS, self.scales, POINTS)
        weights = self.weights(queries_BNC).reshape(*shape[:3], -1).softmax(dim=-1).reshape(shape)
        offsets = self.offsets(queries_BNC).reshape(*shape, 3)
        values = self.value(tokens_BNC).split([math.prod(grid) for grid in grids], dim=1)
        total_BHCN = queries_BNC.new_zeros(())
        for scale, grid in enumerate(grids):
            cell_xyz = 2 / on_device(tuple(grid)[::-1], queries_BNC.device)
            places_BNHP3 = centres_N3[None, :, None, None] + offsets[:, :, :, scale] * cell_xyz
            read_BHCNP = _read(values[scale], grid, places_BNHP3)
            total_BHCN = total_BHCN + (read_BHCNP * weights[:, :, :, scale].permute(0, 2, 1, 3)[:, :, None]).sum(-1)
        return self.out(total_BHCN.flatten(1, 2).transpose(1, 2).to(queries_BNC.dtype))


def _read(values_BNC: Tensor, grid: torch.Size, places_BNHP3: Tensor) -> Tensor:
    """Return `BHCNP`: each head's channels at its places, interpolated in float32."""
    batch = values_BNC.shape[0]
    volumes = to_volume(values_BNC, grid).unflatten(1, (HEADS, -1)).flatten(0, 1).float()
    places = places_BNHP3.permute(0, 2, 1, 3, 4).flatten(0, 1)[:, None].float()
    read = nn.functional.grid_sample(volumes, places, padding_mode="border", align_corners=False)
    return read.squeeze(2).unflatten(0, (batch, HEADS))


class DeformableBlock(nn.Module):
    """Deformable attention and a position-wise network, each followed by its normalisation."""

    def __init__(self, width: int, scales: int):
        super().__init__()
        self.attention = DeformableAttention(width, scales)
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp(width)
        self.norm_mlp = nn.LayerNorm(width)

    def forward(self, tokens_BNC: Tensor, places: tuple[Tensor, Tensor, list[torch.Size]]) -> Tensor:
        """Return tokens of the same shape; places: positions to add to queries, centres, grids."""
        positions_NC, centres_N3, grids = places
        attended = self.attention(tokens_BNC + positions_NC, tokens_BNC, centres_N3, grids)
        tokens_BNC = self.norm(tokens_BNC + attended)
        return self.norm_mlp(tokens_BNC + self.mlp(tokens_BNC))


class ScaleTransformer(nn.Module):
    """Projects several scales to one width, lets them attend to each other, and projects back."""

    def __init__(self, widths: list[int], *, width: int, layers: int):
        super().__init__()
        self.width = width
        self.inward = nn.ModuleList(nn.Conv3d(source, width, 1) for source in widths)
        self.outward = nn.ModuleList(nn.Conv3d(width, source, 1) for source in widths)
        self.scale_codes = nn.Parameter(torch.randn(len(widths), width) * 0.02)
        self.blocks = nn.ModuleList(DeformableBlock(width, len(widths)) for _ in range(layers))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return features of the same shapes, each with what it read from all scales added."""
        grids = [part.shape[2:] for part in features]
        sizes = [math.prod(grid) for grid in grids]
        centres_N3 = torch.cat([centres(grid, features[0].device) for grid in grids])
        codes_NC = torch.cat([code.expand(size, -1) for code, size in zip(self.scale_codes, sizes, strict=True)])
        places = (sinusoids(centres_N3, self.width) + codes_NC, centres_N3, grids)
        tokens = torch.cat([to_tokens(f(part)) for f, part in zip(self.inward, features, strict=True)], dim=1)
        for block in self.blocks:
            tokens = block(tokens, places)
        volumes = [to_volume(part, grid) for part, grid in zip(tokens.split(sizes, dim=1), grids, strict=True)]
        return [part + back(volume) for part, back, volume in zip(features, self.outward, volumes, strict=True)]


class CoTr(nn.Module):
    """Residual encoder, transformer over its deepest scales, convolutional decoder with deep supervision."""

    def __init__(self, *, channels: int, classes: int, spec: NetworkSpec, layers: int):
        super().__init__()
        stages = len(spec.features)
        self.encoder = ResidualEncoder(
            channels,
            stages,
            list(spec.features),
            nn.Conv3d,
            [list(kernel) for kernel in spec.conv_kernels_zyx],
            [[1, 1, 1], *map(list, spec.pool_kernels_zyx)],
            2,
            conv_bias=True,
            norm_op=InstanceNorm,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            return_skips=True,
        )
        self.decoder = UNetDecoder(self.encoder, classes, 2, deep_supervision=True)
        self.apply(InitWeights_He(1e-2))
        self.scales = min(SCALES, stages - 2)  # never the two finest, where tokens are too many
        self.transformer = ScaleTransformer(
            list(spec.features[-self.scales :]), width=2 * HEADS * spec.base_features, layers=layers
        )

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return logits of all decoder stages, full resolution first."""
        skips = self.encoder(images_BCZYX)
        return self.decoder([*skips[: -self.scales], *self.transformer(skips[-self.scales :])])


def build(tasks: TaskSet, spec: NetworkSpec, *, layers: int = 6) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    network = CoTr(channels=task.num_channels, classes=task.num_classes, spec=spec, layers=layers)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=spec.downsampling_zyx)
