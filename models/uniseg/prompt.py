"""Task prompts as modules of their own. Axis legend: B batch, C channel, T task, Z Y X space.

`UniversalPrompt` is UniSeg's: a learnable tensor with one channel per task is concatenated after the features and
passes three convolution blocks (in -> in/4 -> in/4 -> tasks); the channel of the current task is the task's prompt
(Ye et al., MICCAI 2023; facts of the released network). The other two are ablations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import ConvBlock

Triple = tuple[int, int, int]


class UniversalPrompt(nn.Module):
    """Learnable prompt of all tasks, fused with image features; selection takes one channel."""

    channels = 1

    def __init__(
        self, tasks: int, features: int, grid_zyx: Triple, *, kernels_zyx: Sequence[Triple] = ((3, 3, 3),) * 3
    ):
        super().__init__()
        width = features + tasks
        sizes = (width, width // 4, width // 4, tasks)
        self.prompt = nn.Parameter(torch.randn(1, tasks, *grid_zyx))
        self.fusion = nn.Sequential(
            *(
                ConvBlock(inputs, outputs, kernel_zyx=kernel_zyx)
                for inputs, outputs, kernel_zyx in zip(sizes[:-1], sizes[1:], kernels_zyx, strict=True)
            )
        )

    def fuse(self, features_BCZYX: Tensor) -> Tensor:
        """Return prompts_BTZYX of all tasks on the grid of the features."""
        prompt = on_grid(self.prompt, features_BCZYX)
        return self.fusion(torch.cat([features_BCZYX, prompt], dim=1))

    def forward(self, features_BCZYX: Tensor, task_index: int) -> Tensor:
        """Return the prompt of one task, with one channel."""
        return self.fuse(features_BCZYX)[:, task_index : task_index + 1]


class MultiplePrompts(nn.Module):
    """Ablation: one learnable prompt per task, appended as it is, without fusion with image features."""

    channels = 1

    def __init__(self, tasks: int, features: int, grid_zyx: Triple):
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(1, tasks, *grid_zyx))

    def forward(self, features_BCZYX: Tensor, task_index: int) -> Tensor:
        """Return the task's own prompt, with one channel."""
        return on_grid(self.prompts[:, task_index : task_index + 1], features_BCZYX)


class FixedOneHotPrompt(nn.Module):
    """Ablation: constant maps, one for the current task and zero for the others; nothing is learned."""

    def __init__(self, tasks: int, features: int, grid_zyx: Triple):
        super().__init__()
        self.channels = tasks

    def forward(self, features_BCZYX: Tensor, task_index: int) -> Tensor:
        """Return one channel per task."""
        code = features_BCZYX.new_zeros(features_BCZYX.shape[0], self.channels, *features_BCZYX.shape[2:])
        code[:, task_index] = 1
        return code


def cosine_similarity(prompt_1TZYX: Tensor) -> list[list[float]]:
    """Return the cosine (-1 to 1) between the prompt channels of every two tasks; 0 for a channel of zeros."""
    channels_TN = functional.normalize(prompt_1TZYX.detach()[0].flatten(1).double(), dim=1)
    cosine: list[list[float]] = (channels_TN @ channels_TN.T).tolist()
    return cosine


def on_grid(prompt: Tensor, features_BCZYX: Tensor) -> Tensor:
    """Return the prompt repeated over the batch; another grid is reached by trilinear interpolation."""
    if prompt.shape[2:] != features_BCZYX.shape[2:]:
        prompt = functional.interpolate(prompt, size=features_BCZYX.shape[2:], mode="trilinear")
    return prompt.expand(features_BCZYX.shape[0], -1, -1, -1, -1).to(features_BCZYX.dtype)


PROMPTS = {"universal": UniversalPrompt, "multiple": MultiplePrompts, "fixed_one_hot": FixedOneHotPrompt}
