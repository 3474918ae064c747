"""Predictions of an external model: the masks that it wrote, checked against the grid and classes of each case."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segbench.core.case import Case
from segbench.core.errors import raise_problems
from segbench.core.task import Task
from segbench.data.volumes import open_volume
from segbench.evaluation.external_commands import Masks
from segbench.evaluation.label_maps import LabelMap, grid_problems, read_label_map


class MaskPredictor:
    """Hands out masks that are there; one that is missing is None."""

    def __init__(self, masks: Masks):
        self.masks = masks
        self.seconds = masks.seconds

    def made_by(self, task: Task, case: Case) -> str:
        """Return the SHA-256 of the mask, empty where there is none."""
        return self.masks.sha256[task.name].get(case.case_id, "")

    def read(self, task: Task, case: Case) -> np.ndarray | None:
        """Return the mask; another grid or an undeclared value raises `InputError`."""
        path = self.masks.paths[task.name][case.case_id]
        return None if path is None else read_mask(path, case, task).labels_XYZ.astype(np.uint8)

    def predict(self, task: Task, case: Case, inputs: np.ndarray | None) -> np.ndarray | None:
        """Return the mask as it was read."""
        return inputs


def read_mask(path: Path, case: Case, task: Task) -> LabelMap:
    """Return a mask on the case's native grid; another grid or an undeclared value raises InputError."""
    allowed = frozenset(range(len(task.classes) + 1))
    mask = read_label_map(path, allowed, fix="write the class values of the task, and 0 for all other voxels")
    label = open_volume(case.label_path)
    reference = LabelMap(
        Path(case.label_path), np.broadcast_to(0, label.shape), label.affine, is_oriented=label.is_oriented
    )
    raise_problems(grid_problems(reference, mask))
    return mask
