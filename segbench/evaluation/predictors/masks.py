"""Predictions of an external model: the masks that it wrote, checked against the grid and classes of each case."""

from __future__ import annotations

import numpy as np

from segbench.core.case import Case
from segbench.core.task import Task
from segbench.evaluation.external_commands import Masks, read_mask


class MaskPredictor:
    """Hands out masks that are there; one that is missing is None."""

    def __init__(self, masks: Masks):
        self.masks = masks
        self.seconds = masks.seconds

    def made_by(self, task: Task, case: Case) -> str:
        """Return the SHA-256 of the mask, empty where there is none."""
        return self.masks.sha256[task.name].get(case.case_id, "")

    def predict(self, task: Task, case: Case) -> np.ndarray | None:
        """Return the mask; another grid or an undeclared value raises `InputError`."""
        path = self.masks.paths[task.name][case.case_id]
        if path is None:
            return None
        return read_mask(path, case, task).labels_XYZ.astype(np.uint8)
