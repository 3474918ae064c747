"""Primus: a plain vision transformer on tokens of 8x8x8 voxels, with a light decoder and no skips.

Axis legend: B batch, C channel, K class, N token, H head, P rotary component, Z Y X space.

Written from the implementation that its authors keep (dynamic-network-architectures, Apache-2.0), whose transformer
needs a library that segbench does without; tokens and decoder are that implementation's own. Modules have its names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchDecode, PatchEmbed
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import Triple, initialise_weights
from models.blocks.own_network import PerTaskModel, padded_size_zyx, the_task
from models.interface import NetworkSpec
from segbench.core.errors import input_error, suggestion
from segbench.core.task import TaskSet

CARD = {
    "title": "Primus",
    "kind": "single_task",
    "citation": "Wald, Roy, Isensee et al., Primus: Enforcing Attention Usage for 3D Medical Image Segmentation, "
    "TMLR 2025 (arXiv 2503.01835)",
    "url": "https://github.com/MIC-DKFZ/dynamic-network-architectures",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "numerical",
    "deviations": [
        "width of a head 72 (size M) or 66 at the base width 32, otherwise the nearest multiple of 6",
        "sizes other than the patch are padded by their border to multiples of 8, and positions are interpolated; the "
        "original takes the patch only",
        "under the equal recipe SGD replaces the published AdamW of learning rate 3e-4 with warm-up",
    ],
    "channels": "any",
    "patch_multiple": [8, 8, 8],
    "options": {
        "size": {
            "default": "M",
            "help": "S, B, M or L, the sizes of the paper",
            "label": "{value}",
            "always_named": True,
        },
        "drop_path": {
            "at_least": 0,
            "below": 1,
            "default": 0.2,
            "help": "probability that the last block is left out in training, from 0 up",
        },
    },
    "encoder_keys": ["network.down_projection.", "network.eva."],
    "backbone": "own",
    "published_recipe": {
        "source": "MIC-DKFZ/nnUNet, nnunetv2/training/nnUNetTrainer/primus/primus_trainers.py and "
        "variants/lr_schedule/nnUNetTrainer_warmup.py",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0003,
            "betas": [0.9, 0.98],
            "weight_decay": 0.05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "warmup": 0.05,
            "gradient_clip": 1.0,
            "drop_path": 0.2,
        },
        "not_taken": [
            "50 of 1000 epochs of warm-up, stated here as a fraction of the run; the learning rate "
            "changes once per epoch there"
        ],
    },
}
TOKEN_ZYX: Triple = (8, 8, 8)
NORM_EPS = 1e-5
MLP_RATIO = 8 / 3
LAYER_SCALE = 0.1  # initial value of gamma
TEMPERATURE = 10000.0
SPREAD = 0.02  # standard deviation of new weights

# size: blocks, heads, width of a head
SIZES = {"S": (12, 6, 66), "B": (12, 12, 66), "M": (16, 12, 72), "L": (24, 16, 66)}
NARROWEST = 6  # a head has pairs of components for three axes


def rotary_angles(grid_zyx: Sequence[int], reference_zyx: Sequence[int], components: int, *, like: Tensor) -> Tensor:
    """Return the rotary angle of each token and component (N, P), components in pairs: all of z, then of y and x.

    A grid other than the reference spans the same positions. `like` gives the device.
    """
    pairs = components // NARROWEST
    bands = TEMPERATURE ** -(torch.arange(pairs, device=like.device) / pairs)
    axes = [
        torch.arange(size, device=like.device) / size * reference
        for size, reference in zip(grid_zyx, reference_zyx, strict=True)
    ]
    positions_N3 = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    return (positions_N3[:, :, None] * bands).flatten(1).repeat_interleave(2, dim=1)


def rotated(x_BHNP: Tensor, angles_NP: Tensor) -> Tensor:
    """Return queries or keys with each pair of components turned by its token's angle (Su et al., RoFormer, 2021)."""
    turned_BHNP = torch.stack([-x_BHNP[..., 1::2], x_BHNP[..., ::2]], dim=-1).flatten(-2)
    return (x_BHNP * angles_NP.cos() + turned_BHNP * angles_NP.sin()).type_as(x_BHNP)


class Attention(nn.Module):
    """Self-attention with rotary positions and a norm before the last projection."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BNC: Tensor, angles_NP: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        q, k, v = (
            projection(tokens_BNC).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, angles_NP), rotated(k, angles_NP)
        return self.proj(self.norm(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class GatedPerceptron(nn.Module):
    """Two layers; the first is gated by a SiLU of a layer of its own and normalised (SwiGLU; Shazeer, 2020)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens_BNC: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        return self.fc2(self.norm(functional.silu(self.fc1_g(tokens_BNC)) * self.fc1_x(tokens_BNC)))


class Block(nn.Module):
    """Attention and perceptron, each behind a norm, scaled per channel and added; in training some are left out."""

    def __init__(self, width: int, heads: int, drop_path: float):
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.gamma_1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = GatedPerceptron(width, int(width * MLP_RATIO))
        self.gamma_2 = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, tokens_BNC: Tensor, angles_NP: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        tokens_BNC = tokens_BNC + self.drop_path(self.gamma_1 * self.attn(self.norm1(tokens_BNC), angles_NP))
        return tokens_BNC + self.drop_path(self.gamma_2 * self.mlp(self.norm2(tokens_BNC)))


class Transformer(nn.Module):
    """Blocks on tokens with learned and rotary positions.

    Args:
        grid_zyx: tokens per axis that the learned positions belong to; they are interpolated for another grid.
        width, heads, depth: of the tokens, of each attention, of the stack.
        drop_path: of the last block; it grows from 0 at the first.
    """

    def __init__(self, grid_zyx: Triple, *, width: int, heads: int, depth: int, drop_path: float):
        super().__init__()
        self.grid_zyx = grid_zyx
        self.components = width // heads
        self.pos_embed = nn.Parameter(torch.zeros(1, math.prod(grid_zyx), width))
        blocks = [Block(width, heads, drop_path * number / max(1, depth - 1)) for number in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self._initialise(blocks)

    def forward(self, features_BCZYX: Tensor) -> Tensor:
        """Return features of the same shape."""
        grid_zyx = tuple(features_BCZYX.shape[2:])
        tokens_BNC = features_BCZYX.flatten(2).transpose(1, 2) + self._positions(grid_zyx)
        angles_NP = rotary_angles(grid_zyx, self.grid_zyx, self.components, like=tokens_BNC)
        for block in self.blocks:
            tokens_BNC = block(tokens_BNC, angles_NP)
        return self.norm(tokens_BNC).transpose(1, 2).unflatten(2, grid_zyx)

    def _positions(self, grid_zyx: Sequence[int]) -> Tensor:
        if tuple(grid_zyx) == tuple(self.grid_zyx):
            return self.pos_embed
        learned_1CZYX = self.pos_embed.transpose(1, 2).unflatten(2, self.grid_zyx)
        resized = functional.interpolate(learned_1CZYX, size=tuple(grid_zyx), mode="trilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2)

    def _initialise(self, blocks: Sequence[Block]) -> None:
        """Draw truncated normal weights; the last layer of each branch is smaller the deeper its block lies."""
        nn.init.trunc_normal_(self.pos_embed, std=SPREAD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=SPREAD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for number, block in enumerate(blocks, start=1):
                for layer in (block.attn.proj, block.mlp.fc2):
                    layer.weight.div_(math.sqrt(2 * number))


class Primus(nn.Module):
    """Tokens, transformer, and transposed convolutions back to the voxels.

    Args:
        channels, classes: of the image and of the logits.
        patch_zyx: size in voxels that the learned positions belong to, a multiple of 8 per axis.
        width, heads, depth, drop_path: of the transformer.
    """

    def __init__(
        self, *, channels: int, classes: int, patch_zyx: Triple, width: int, heads: int, depth: int, drop_path: float
    ):
        super().__init__()
        z, y, x = (size // token for size, token in zip(patch_zyx, TOKEN_ZYX, strict=True))
        self.down_projection = PatchEmbed(TOKEN_ZYX, channels, width)
        self.up_projection = PatchDecode(TOKEN_ZYX, width, classes)
        self.eva = Transformer((z, y, x), width=width, heads=heads, depth=depth, drop_path=drop_path)
        self.down_projection.apply(initialise_weights)
        self.up_projection.apply(initialise_weights)

    def forward(self, images_BCZYX: Tensor) -> Tensor:
        """Return `logits_BKZYX` at full resolution."""
        return self.up_projection(self.eva(self.down_projection(images_BCZYX)))


def build(tasks: TaskSet, spec: NetworkSpec, *, size: str = "M", drop_path: float = 0.2) -> PerTaskModel:
    """Return the network for the only task of `tasks`; an unknown size or probability raises `InputError`."""
    task = the_task(tasks)
    if size not in SIZES:
        raise input_error("option size of primus", found=size, expected="S, B, M or L", fix=suggestion(size, SIZES))
    if not 0 <= drop_path < 1:
        raise input_error(
            "option drop_path of primus", found=drop_path, expected="0 to below 1", fix="use 0.2 as published"
        )
    depth, heads, head_width = SIZES[size]
    scaled = max(1, round(head_width * spec.base_features / 32 / NARROWEST)) * NARROWEST
    network = Primus(
        channels=task.num_channels,
        classes=task.num_classes,
        patch_zyx=padded_size_zyx(spec.patch_size_zyx, TOKEN_ZYX),
        width=heads * scaled,
        heads=heads,
        depth=depth,
        drop_path=drop_path,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=TOKEN_ZYX)
