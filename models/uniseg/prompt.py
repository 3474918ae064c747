"""The universal prompt as a module of its own. Axis legend: B batch, C channel, T task, Z Y X space.

A learnable tensor with one channel per task at the bottleneck grid is concatenated after the bottleneck features and
passes three convolution blocks (in -> in/4 -> in/4 -> tasks); the channel of the current task is the task's prompt
(Ye et al., MICCAI 2023; facts of the released network).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import ConvBlock


class UniversalPrompt(nn.Module):
    """Learnable prompt and fusion; `forward` returns one fused channel per task."""

    def __init__(self, tasks: int, features: int, grid_zyx: tuple[int, int, int]):
        super().__init__()
        width = features + tasks
        self.prompt = nn.Parameter(torch.randn(1, tasks, *grid_zyx))
        self.fusion = nn.Sequential(
            ConvBlock(width, width // 4), ConvBlock(width // 4, width // 4), ConvBlock(width // 4, tasks)
        )

    def forward(self, features_BCZYX: Tensor) -> Tensor:
        """Return prompts_BTZYX on the grid of the features; another grid is reached by trilinear interpolation."""
        prompt = self.prompt
        if prompt.shape[2:] != features_BCZYX.shape[2:]:
            prompt = functional.interpolate(prompt, size=features_BCZYX.shape[2:], mode="trilinear")
        prompt = prompt.expand(features_BCZYX.shape[0], -1, -1, -1, -1).to(features_BCZYX.dtype)
        return self.fusion(torch.cat([features_BCZYX, prompt], dim=1))
