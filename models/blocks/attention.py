"""Small pieces of attention that several baselines share. Axis legend: B batch, N token, C channel, Z Y X space."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def to_tokens(features_BCZYX: Tensor) -> Tensor:
    """Return `tokens_BNC`, N running over z, y, x with x fastest."""
    return features_BCZYX.flatten(2).transpose(1, 2)


def to_volume(tokens_BNC: Tensor, grid_zyx: Sequence[int]) -> Tensor:
    """Return `features_BCZYX`; the inverse of `to_tokens`."""
    return tokens_BNC.transpose(1, 2).unflatten(2, tuple(grid_zyx))


class Attention(nn.Module):
    """Multi-head attention from queries to a context of the same width, memory-efficient where the device allows."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        assert width % heads == 0, "the width must be a multiple of the number of heads"
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries_BNC: Tensor, context_BMC: Tensor) -> Tensor:
        """Return the attended context at each query, `BNC`."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(queries_BNC), *self.key_value(context_BMC).chunk(2, dim=-1))
        )
        attended_BHNC = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(attended_BHNC.transpose(1, 2).flatten(2))


def mlp(width: int, ratio: int = 4) -> nn.Sequential:
    """Return the position-wise two-layer network of a transformer block."""
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


class AttentionBlock(nn.Module):
    """Pre-normalised transformer block; with a context it attends there, without it attends to its own tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = mlp(width)

    def forward(self, tokens_BNC: Tensor, context_BMC: Tensor | None = None) -> Tensor:
        """Return tokens of the same shape."""
        normed_BNC = self.norm(tokens_BNC)
        tokens_BNC = tokens_BNC + self.attention(normed_BNC, normed_BNC if context_BMC is None else context_BMC)
        return tokens_BNC + self.mlp(self.norm_mlp(tokens_BNC))
