"""Guards of a training: a loss that is not finite, dead output. Axis legend: B batch, K class, Z Y X space."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from segbench.core.errors import RunFailed
from segbench.core.task import IGNORED

DEAD_AFTER_STEPS = 100
"""Steps of a task with foreground in the patches and none in the prediction, one after the other, that are reported."""
log = logging.getLogger(__name__)


class Diverged(Exception):
    """The loss, or its gradient, is not finite in float32 either."""

    def __init__(self, what: str, value: float):
        super().__init__(f"the {what} is {value}")


class DivergedAgain(RunFailed):
    """A training diverged and could not go back any more."""


@dataclass
class DeadOutput:
    """Counts, for each task, the latest steps whose patches held foreground while the prediction held none."""

    steps: dict[str, int]

    def see(self, task: str, missed: bool | None) -> None:
        """Count a step; `missed` is None when the patches hold no foreground, which says nothing."""
        if missed is None:
            return
        self.steps[task] = self.steps.get(task, 0) + 1 if missed else 0
        if self.steps[task] == DEAD_AFTER_STEPS:
            log.warning("dead output: %s is all background in the last %d steps of the task", task, DEAD_AFTER_STEPS)

    def report(self) -> dict[str, int]:
        """Return task -> steps of the tasks whose output is dead now."""
        return {task: steps for task, steps in sorted(self.steps.items()) if steps >= DEAD_AFTER_STEPS}


@torch.no_grad()
def foreground_counts(logits_BKZYX: Tensor, labels_BZYX: Tensor, *, activation: str) -> Tensor:
    """Return whether the labels, and whether the prediction, hold foreground: two numbers, 0 or 1, on the device."""
    foreground_BZYX = (labels_BZYX != 0) & (labels_BZYX != IGNORED)
    threshold_BZYX = logits_BKZYX[:, 0] if activation == "softmax" else torch.zeros_like(logits_BKZYX[:, 0])
    predicted_BZYX = logits_BKZYX[:, 1:].amax(1) > threshold_BZYX
    return torch.stack([foreground_BZYX.any(), predicted_BZYX.any()]).float()
