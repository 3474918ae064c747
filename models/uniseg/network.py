"""UniSeg on the shared backbone: the prompt enters the decoder early. B batch, C channel, K class, Z Y X space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from models.uniseg.decoder import SkipSharingDecoder
from models.uniseg.prompt import PROMPTS, UniversalPrompt, cosine_similarity
from models.weights.official import task_numbers
from segbench.core.errors import input_error, suggestion
from segbench.core.task import Task, TaskSet

Features = tuple[list[Tensor], list[Tensor] | None]


class UniSeg(SegmentationModel):
    """Encoder, task prompt, decoder with the prompt's channels appended, heads with the widest task's classes.

    prompt: 'universal' (the method), or an ablation: 'none', 'fixed_one_hot', 'multiple'. position: 0 appends the
    prompt at the bottleneck (the method), n at the n-th decoder stage. `channel_counts`, `task_count` and `classes`
    replace what the task set says, for weights whose tasks are known by number only.
    """

    def __init__(
        self,
        tasks: TaskSet,
        spec: NetworkSpec,
        *,
        prompt: str = "universal",
        position: int = 0,
        channel_counts: Sequence[int] | None = None,
        task_count: int | None = None,
        classes: int | None = None,
    ):
        super().__init__(tasks, spec)
        self.task_conditioned = prompt != "none"
        self.task_count = task_count or len(tasks)
        _check_options(prompt, position, len(spec.pool_kernels_zyx))
        width, grid_zyx = _place(spec, position)
        self.encoder = SharedEncoder(spec, channel_counts or tasks.channel_counts)
        self.prompt = None if prompt == "none" else PROMPTS[prompt](self.task_count, width, grid_zyx)
        extra = 0 if self.prompt is None else self.prompt.channels
        self.decoder = SkipSharingDecoder(spec, extra_channels=extra, extra_level=position)
        self.heads = DeepSupervisionHeads(spec, classes or tasks.max_classes)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> Features:
        """Return all that tasks share: encoder features, finest first, and in evaluation what the skips add.

        Training has one task per image, so that nothing is gained there by preprocessing the skips.
        """
        features = self.encoder(images_BCZYX)
        return features, None if self.training else self.decoder.skip_parts(features)

    def decode(self, features: Features, task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of one task; only its first classes are used, as in the released network."""
        return [logits[:, : task.num_classes] for logits in self.decode_index(features, self.tasks.index(task))]

    def decode_index(self, features: Features, task_index: int) -> list[Tensor]:
        """Return the unsliced logits of a task by its number, full resolution first."""
        stages, parts = features
        prompt, extra = self.prompt, None
        if prompt is not None and self.decoder.extra_level == 0:  # here, so that the decoder is the same for all tasks
            stages = [*stages[:-1], torch.cat([stages[-1], prompt(stages[-1], task_index)], dim=1)]
        elif prompt is not None:
            extra = partial(prompt, task_index=task_index)
        if parts is None:
            return self.heads(self.decoder(stages, extra))
        return self.heads(self.decoder.from_parts(stages[-1], parts, extra))

    def forward_index(self, images_BCZYX: Tensor, task_index: int | Sequence[int] | Tensor) -> list[Tensor]:
        """Return the unsliced logits at all scales, full resolution first.

        task_index: a number, or the same number for every sample. Arithmetic is in the order of the released network:
        here no skips are preprocessed for several tasks. Raises InputError for a channel count without a stem, a task
        number without a prompt, different tasks in one batch (the released network would use the first for all), or
        a size that is no multiple of the total down-sampling.
        """
        self.encoder.stem.check_channels(images_BCZYX.shape[1])
        numbers = set(task_numbers(task_index, batch=len(images_BCZYX), tasks=self.task_count).tolist())
        if len(numbers) != 1:
            fix = "ask for each task by itself"
            raise input_error("task numbers", found=sorted(numbers), expected="one task for the batch", fix=fix)
        size_zyx, steps_zyx = tuple(images_BCZYX.shape[2:]), self.spec.downsampling_zyx
        if any(size % step for size, step in zip(size_zyx, steps_zyx, strict=True)) or size_zyx == steps_zyx:
            expected = f"multiples of {steps_zyx}, more than once in all"  # one position cannot be normalised
            raise input_error("image size", found=size_zyx, expected=expected, fix="pad the image")
        return self.decode_index((self.encoder(images_BCZYX), None), numbers.pop())

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return how alike the tasks' channels of the learned universal prompt are, where there are two or more."""
        if not isinstance(self.prompt, UniversalPrompt) or not 1 < self.task_count == len(self.tasks):
            return {}
        return {"prompt_similarity": {"cosine": cosine_similarity(self.prompt.prompt)}}

    def official_outputs(self, images_BCZYX: Tensor, task_id: int) -> list[Tensor]:
        """Return what the released network returns for a task number."""
        return self.forward_index(images_BCZYX, task_id)


def _place(spec: NetworkSpec, position: int) -> tuple[int, tuple[int, int, int]]:
    """Return the width and the grid of the features that the prompt is appended to."""
    level = len(spec.pool_kernels_zyx) - position
    grid = list(spec.patch_size_zyx)
    for kernel in spec.pool_kernels_zyx[:level]:
        grid = [size // factor for size, factor in zip(grid, kernel, strict=True)]
    z, y, x = grid
    return spec.features[level], (z, y, x)


def _check_options(prompt: str, position: int, stages: int) -> None:
    if prompt not in (*PROMPTS, "none"):
        known = [*PROMPTS, "none"]
        raise input_error(
            "option prompt", found=repr(prompt), expected="a kind of prompt", fix=suggestion(str(prompt), known)
        )
    if not isinstance(position, int) or not 0 <= position < stages:
        fix = "0 is the bottleneck, 1 the first decoder stage"
        raise input_error("option position", found=position, expected=f"0 to {stages - 1}", fix=fix)
