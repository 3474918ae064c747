"""Per-task networks with a body of their own: any input size is padded to the network's demand and cropped back.

Axis legend: B batch, C channel, K class, Z Y X space. The network sees one task only, so nothing is conditioned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from models.interface import NetworkSpec, SegmentationModel, scales_of
from segbench.core.errors import input_error
from segbench.core.task import Task, TaskSet

Triple = tuple[int, int, int]


def the_task(tasks: TaskSet) -> Task:
    """Return the only task of a per-task model; more or fewer raise `InputError`."""
    if len(tasks) != 1:
        raise input_error(
            "tasks of a per-task model",
            found=f"{len(tasks)} tasks ({', '.join(tasks.names)})",
            expected="exactly one",
            fix="train it once per task",
        )
    return next(iter(tasks))


def padded_size_zyx(size_zyx: Sequence[int], multiple_zyx: Sequence[int], *, samples: int = 1) -> Triple:
    """Return the smallest size that is a multiple per axis and leaves two positions at the lowest resolution.

    A single position would make instance normalisation undefined and attention constant, so the last axis doubles;
    not so for several samples, when the network's statistics are those of the batch.
    """
    padded = [-(-size // multiple) * multiple for size, multiple in zip(size_zyx, multiple_zyx, strict=True)]
    if padded == list(multiple_zyx) and samples == 1:
        padded[-1] *= 2
    z, y, x = padded
    return z, y, x


def coarser_heads(widths: Sequence[int], classes: int, deep_supervision: bool) -> nn.ModuleList:
    """Return a convolution of 1x1x1 for each coarser decoder stage, finest first; none without deep supervision."""
    return nn.ModuleList(nn.Conv3d(width, classes, 1) for width in (widths if deep_supervision else ()))


def answers_of(heads: nn.ModuleList, finest_first: Iterable[Tensor]) -> list[Tensor]:
    """Return the logits of decoder stages by their heads; no heads, no logits."""
    return [head(x_BCZYX) for head, x_BCZYX in zip(heads, finest_first, strict=False)]


class PerTaskModel(SegmentationModel):
    """Serves one task with any network that maps `images_BCZYX` to logits (or a list, full resolution first).

    multiple_zyx: three whole numbers that input sizes must be multiples of, as a card states them. Padding is at the
    end of each axis, so that coarser logits still lie on the grid of the labels wherever their stride divides the
    input; the others are left out. scale_rule: how the scales weigh in the loss.
    """

    task_conditioned = False

    def __init__(
        self, tasks: TaskSet, spec: NetworkSpec, *, network: nn.Module, multiple_zyx: Any, scale_rule: str = "nnunet"
    ):
        super().__init__(tasks, spec)
        the_task(tasks)
        self.network = network
        self.scale_rule = scale_rule
        self.multiple_zyx = tuple(int(value) for value in multiple_zyx)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the logits already: with one task there is nothing that could be decoded differently."""
        size_zyx = tuple(images_BCZYX.shape[2:])
        padded_zyx = padded_size_zyx(size_zyx, self.multiple_zyx)
        if padded_zyx == size_zyx:
            return self._scales(images_BCZYX)
        ends_zyx = [target - size for target, size in zip(padded_zyx, size_zyx, strict=True)]
        padding = [value for end in reversed(ends_zyx) for value in (0, end)]  # torch counts from the last axis
        images_BCZYX = nn.functional.pad(images_BCZYX, padding, mode="replicate")
        return _cropped(self._scales(images_BCZYX), padded_zyx, size_zyx)

    def _scales(self, images_BCZYX: Tensor) -> list[Tensor]:
        return scales_of(self.network(images_BCZYX), network=type(self.network).__name__)

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        """Return the logits of the only task."""
        self.tasks.index(task)
        return features


def _cropped(logits: list[Tensor], padded_zyx: Sequence[int], size_zyx: Sequence[int]) -> list[Tensor]:
    cropped = []
    for logits_BKZYX in logits:
        strides = [padded // size for padded, size in zip(padded_zyx, logits_BKZYX.shape[2:], strict=True)]
        if all(size % stride == 0 for size, stride in zip(size_zyx, strides, strict=True)):
            z, y, x = (size // stride for size, stride in zip(size_zyx, strides, strict=True))
            cropped.append(logits_BKZYX[:, :, :z, :y, :x])
    return cropped
