"""Dice on held-out training cases in the course of a training, and on as many others at its end.

For learning curves it chooses nothing. The trials of tuned trainings are scored by it too, on other cases
(`training.tuning`).

Axis legend: C channel, K class, Z Y X space.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from models.interface import SegmentationModel
from segbench.core.task import IGNORED, Task
from segbench.data.store import PreprocessedCase, open_case
from segbench.experiment.context import JobContext
from segbench.inference.sliding_window import Windows, finite, slabs, sums_device
from segbench.metrics import score_pair

DIGITS = 6
ANY_SPACING = (1.0, 1.0, 1.0)
"""Dice counts voxels, whatever their size."""


def validation_steps(total: int, points: int) -> list[int]:
    """Return the steps after which Dice is measured: `points` evenly spaced ones, the last one at the end."""
    return sorted({total * number // points for number in range(1, points + 1)} - {0})


class Validation:
    """Measures the Dice of a job's tasks on the cases that are held out of its training, and on some that are not.

    A case is predicted by sliding windows that overlap by half, without mirroring, and compared on its preprocessed
    grid: cheaper than an evaluation, and close to it. Weights, generators and modes are afterwards as before.

    Args:
        context: the job.
        total: steps of the training.
        precision: of the forward pass, that of the training.
        compiled: whether regions of the network are compiled, which they are for training alone: a few windows would
            pay for kernels of their own.
    """

    def __init__(self, context: JobContext, total: int, *, precision: str, compiled: bool = False):
        self.tasks, self.compiled = context.tasks, compiled
        self.steps = validation_steps(total, context.training.validation_points)
        self.cases, self.seen = (
            [[open_case(context.folder(task.name, case)) for case in chosen(task.name)] for task in self.tasks]
            for chosen in (context.validation_cases, context.seen_cases)
        )
        self.windows = Windows(context.network.patch_size_zyx, precision=precision)
        self.batch = context.training.batch_size

    def measure(self, model: SegmentationModel) -> list[float | None]:
        """Return the mean Dice of each task: over structures of means over held-out cases, from 0 to 1.

        A structure counts in the cases in which it was looked for, and is in the reference or the prediction; None for
        a task without any.
        """
        return self._measured(model, self.cases)

    def measure_seen(self, model: SegmentationModel) -> list[float | None]:
        """Return the same of as many cases that the network was trained on."""
        return self._measured(model, self.seen)

    def _measured(
        self, model: SegmentationModel, cases_of_tasks: Sequence[Sequence[PreprocessedCase]]
    ) -> list[float | None]:
        eager = torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()
        with _as_before(model), eager:
            return [self._mean_dice(model, task, cases) for task, cases in zip(self.tasks, cases_of_tasks, strict=True)]

    def record(self, found: Mapping[int, Sequence[float | None]], seen: Sequence[float | None]) -> dict[str, Any]:
        """Return plain values for the outcome: tasks, held-out cases of each, steps, and the Dice of each by step.

        Args:
            found: step -> what `measure` returned after it.
            seen: what `measure_seen` returned at the end; empty before.
        """
        return {
            "tasks": list(self.tasks.names),
            "cases": [len(cases) for cases in self.cases],
            "steps": list(found),
            "dice": [list(values) for values in found.values()],
            "seen_dice": list(seen),
        }

    def _mean_dice(self, model: SegmentationModel, task: Task, cases: Sequence[PreprocessedCase]) -> float | None:
        of_structure: dict[str, list[float]] = {}
        for case in cases:
            structures = [item for item in task.structures if all(map(case.is_annotated, item.labels))]
            reference_ZYX = case.labels[:]
            images_CZYX, device = case.images[:], next(model.parameters()).device
            predict = partial(self._predicted, model, task, images_CZYX, device)
            predicted_ZYX = finite(predict, self.windows, device)
            predicted_ZYX[reference_ZYX == IGNORED] = 0
            for found in score_pair(reference_ZYX, predicted_ZYX, ANY_SPACING, structures, metrics=("dice",)):
                if found.value is not None:
                    of_structure.setdefault(found.structure, []).append(found.value)
        means = [statistics.fmean(values) for values in of_structure.values()]
        return round(statistics.fmean(means), DIGITS) if means else None

    def _predicted(
        self, model: SegmentationModel, task: Task, images_CZYX: np.ndarray, device: torch.device, windows: Windows
    ) -> np.ndarray:
        """Return labels_ZYX, the class of the largest probability on the preprocessed grid."""
        labels_ZYX = np.empty(images_CZYX.shape[1:], dtype=np.uint8)
        keep_on = sums_device(device, [task], images_CZYX.shape[1:], windows.patch_size_zyx)
        for start, (probabilities_KZYX,) in slabs(
            model, images_CZYX, [task], windows, keep_on=keep_on, batch=self.batch
        ):
            largest_ZYX = probabilities_KZYX.argmax(dim=0).to(torch.uint8).cpu().numpy()
            labels_ZYX[start : start + len(largest_ZYX)] = largest_ZYX
        return labels_ZYX


@contextlib.contextmanager
def _as_before(model: SegmentationModel) -> Iterator[None]:
    """Evaluation mode; afterwards every module has its own mode, and the generators their state."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
