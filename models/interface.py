"""The contract every network meets. Axis legend: B batch, C channel, K class, Z Y X space (slowest first).

Logits convention: `decode` returns a list of `logits_BKZYX`, full resolution first, the rest coarser for deep
supervision, with K = task.num_classes and channel 0 the background. `probabilities` turns one of them into
probabilities over the same K channels, whose argmax is the label map; sliding windows average these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from segbench.core.errors import input_error
from segbench.core.task import Task, TaskSet


@dataclass(frozen=True)
class NetworkSpec:
    """Size of a network, stated once in config and given to every model.

    patch_size_zyx in voxels; base_features doubles per stage up to max_features; pool_kernels_zyx: one kernel
    (= stride) per down-sampling; conv_kernels_zyx: one kernel per stage, one more than there are poolings.
    """

    patch_size_zyx: tuple[int, int, int] = (64, 192, 192)
    base_features: int = 32
    max_features: int = 320
    pool_kernels_zyx: tuple[tuple[int, int, int], ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    conv_kernels_zyx: tuple[tuple[int, int, int], ...] = (
        (1, 3, 3),
        (3, 3, 3),
        (3, 3, 3),
        (3, 3, 3),
        (3, 3, 3),
        (3, 3, 3),
    )

    @property
    def features(self) -> tuple[int, ...]:
        """Width of each encoder stage, bottleneck last."""
        return tuple(
            min(self.base_features * 2**stage, self.max_features) for stage in range(len(self.pool_kernels_zyx) + 1)
        )

    @property
    def downsampling_zyx(self) -> tuple[int, int, int]:
        """Product of the pool kernels per axis: input sizes must be multiples of it."""
        z, y, x = (math.prod(kernel[axis] for kernel in self.pool_kernels_zyx) for axis in range(3))
        return z, y, x

    @property
    def bottleneck_grid_zyx(self) -> tuple[int, int, int]:
        """Patch size divided by the total down-sampling."""
        z, y, x = (size // factor for size, factor in zip(self.patch_size_zyx, self.downsampling_zyx, strict=True))
        return z, y, x


class SegmentationModel(nn.Module):
    """A network that serves the tasks of its `TaskSet`, one task per call.

    Class attributes: `activation` ('softmax' or 'sigmoid') tells the loss what the logits are. A sigmoid model
    returns channel 0 (background) as zeros and overrides `targets` when its channels are not the exclusive classes.
    `task_conditioned` says whether the answer must differ between tasks with equal channels and classes.
    `class_loss`: 'mean' for the loss of all models, 'sum' for MultiTalent's (`segbench.training.losses.summed_loss`).
    `scale_rule`: how several scales weigh in the loss, see `segbench.training.losses.scale_weights`.
    """

    activation: str = "softmax"
    task_conditioned: bool = True
    class_loss: str = "mean"
    scale_rule: str = "nnunet"

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__()
        self.tasks = tasks
        self.spec = spec

    def encode(self, images_BCZYX: Tensor):
        """Return task-independent features; several tasks on one image share this call."""
        raise NotImplementedError

    def decode(self, features, task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` for one task, full resolution first."""
        raise NotImplementedError

    def forward(self, images_BCZYX: Tensor, task: Task) -> list[Tensor]:
        """Encode and decode; raises `InputError` for an unknown task, a wrong channel count or a wrong answer."""
        self.check_input(images_BCZYX, task)
        logits = self.decode(self.encode(images_BCZYX), task)
        self.check_answer(logits, images_BCZYX, task)
        return logits

    def check_input(self, images_BCZYX: Tensor, task: Task) -> None:
        """Raise `InputError` when the task is unknown or the channel count is not the task's."""
        self.tasks.index(task)
        if images_BCZYX.ndim != 5 or images_BCZYX.shape[1] != task.num_channels:
            raise input_error(
                f"input of task {task.name}",
                found=f"shape {tuple(images_BCZYX.shape)}",
                expected=f"5 axes B,C,Z,Y,X with C = {task.num_channels}",
                fix="give one channel per entry of the card's channels",
            )

    def check_answer(self, logits: object, images_BCZYX: Tensor, task: Task) -> None:
        """Raise `InputError` when `decode` returned no list of `logits_BKZYX` with the full resolution first."""
        batch, _, *size_zyx = images_BCZYX.shape
        full = (batch, task.num_classes, *size_zyx)
        if _are_logits(logits) and logits[0].shape == full and all(scale.shape[:2] == full[:2] for scale in logits):
            return
        raise input_error(
            f"logits of {type(self).__name__} for the task {task.name}",
            found=_in_words(logits),
            expected=f"a list with the shape {full} first, and {full[:2]} before the size of each coarser scale",
            fix="let decode return a list, with the classes of the task and the size of the images",
        )

    def probabilities(self, logits_BKZYX: Tensor, task: Task | None = None) -> Tensor:
        """Return probabilities over K channels (float32) whose argmax over K is the label map.

        softmax: the softmax. sigmoid: each foreground channel's own probability beside a constant 0.5 for
        background, so that a voxel is foreground where some class exceeds one half. `task` matters only to networks
        whose channels are not the exclusive classes.
        """
        logits_BKZYX = logits_BKZYX.float()
        if self.activation == "softmax":
            return logits_BKZYX.softmax(dim=1)
        probabilities_BKZYX = logits_BKZYX.sigmoid()
        probabilities_BKZYX[:, 0] = 0.5
        return probabilities_BKZYX

    def targets(self, labels_BZYX: Tensor, task: Task) -> Tensor:
        """Return `targets_BKZYX` (float32, 0 or 1) for the loss; by default the one-hot of the exclusive classes."""
        zeros_BKZYX = torch.zeros(len(labels_BZYX), task.num_classes, *labels_BZYX.shape[1:], device=labels_BZYX.device)
        return zeros_BKZYX.scatter_(1, labels_BZYX.long()[:, None], 1.0)

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return what a training records of the weights from time to time; nothing by default.

        Returns:
            Name -> quantity -> numbers in nested lists whose axes are the tasks in order, such as
            `{"prompt_similarity": {"cosine": cosine_TT}}`. The outcome of the training holds each name with its tasks,
            the steps, and one entry per step of each quantity.
        """
        return {}


def scales_of(answer: object, *, network: str) -> list[Tensor]:
    """Return logits, or a list of them, as a list; anything else that a network returns raises `InputError`."""
    scales = [answer] if isinstance(answer, Tensor) else answer
    if _are_logits(scales):
        return list(scales)
    raise input_error(
        f"what {network} returns",
        found=_in_words(answer),
        expected="logits with the axes B,K,Z,Y,X or a list of them, in training as in evaluation",
        fix="put a module around it that returns the logits alone",
    )


def _are_logits(value: object) -> TypeGuard[Sequence[Tensor]]:
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(item, Tensor) and item.ndim == 5 for item in value)


def _in_words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_in_words, value))}]"
    return f"a {type(value).__name__}"


def stem_key(channels: int) -> str:
    """Name of the input stem for a channel count, the same in every model on the shared backbone."""
    return f"channels_{channels}"


def task_set(tasks: Sequence[Task] | TaskSet) -> TaskSet:
    """Return a `TaskSet`, building one from a sequence when needed."""
    return tasks if isinstance(tasks, TaskSet) else TaskSet(tasks)
