"""Dice of a network on training cases that it has not learnt from, on the preprocessed grid.

Axis legend: C channel, K class, X Y Z space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.interface import SegmentationModel
from segbench.core.task import IGNORED, Task
from segbench.data.store import PreprocessedCase, open_case
from segbench.experiment.context import JobContext
from segbench.inference.sliding_window import Windows, slabs


def dice_by_task(
    model: SegmentationModel, context: JobContext, cases: Mapping[str, Sequence[str]]
) -> dict[str, float | None]:
    """Return the mean Dice (0 to 1) of each task: over its structures in a case, then over the cases.

    Windows are those of `inference`, without mirroring. A structure that is neither in the reference nor in the
    prediction of a case, or that nobody looked for in it, does not count.

    Args:
        model: the network, in evaluation mode.
        context: the job.
        cases: task -> its cases, which are preprocessed.

    Returns:
        Task -> mean Dice; None where no structure counts in any case.
    """
    found: dict[str, float | None] = {}
    for task in context.tasks:
        windows = _windows(context)
        values = [
            _case_dice(model, task, open_case(context.folder(task.name, name)), windows) for name in cases[task.name]
        ]
        counted = [value for value in values if value is not None]
        found[task.name] = float(np.mean(counted)) if counted else None
    return found


def _windows(context: JobContext) -> Windows:
    inference = context.config.inference
    return Windows(context.network.patch_size_zyx, inference.step, precision=inference.precision)


def _case_dice(model: SegmentationModel, task: Task, case: PreprocessedCase, windows: Windows) -> float | None:
    """Return the mean Dice over the structures that count in a case; None without any."""
    labels_ZYX = case.labels[:]
    predicted_ZYX = np.empty_like(labels_ZYX)
    for start, (probabilities_KZYX,) in slabs(model, case.images[:], [task], windows):
        planes_ZYX = probabilities_KZYX.argmax(0).cpu().numpy()
        predicted_ZYX[start : start + len(planes_ZYX)] = planes_ZYX
    annotated_ZYX = labels_ZYX != IGNORED
    values = []
    for structure in task.structures:
        if not all(case.is_annotated(value) for value in structure.labels):
            continue
        reference_ZYX = np.isin(labels_ZYX, structure.labels)
        own_ZYX = np.isin(predicted_ZYX, structure.labels) & annotated_ZYX
        total = int(reference_ZYX.sum()) + int(own_ZYX.sum())
        if total:
            values.append(2 * int((reference_ZYX & own_ZYX).sum()) / total)
    return float(np.mean(values)) if values else None
