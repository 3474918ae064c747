"""Where predicted label maps come from: one protocol, three implementations (network, control, masks)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from segbench.core.case import Case
from segbench.core.task import Task


class Prediction(NamedTuple):
    """A label map on the native grid of its case, in the class values of the task's card."""

    labels_XYZ: np.ndarray
    """Class values, uint8."""
    affine: np.ndarray
    """4x4, voxel indices to mm."""


class Predictor(Protocol):
    """Predicts the test cases of one job."""

    seconds: float
    """Time that was spent before the first case, such as by an external command."""

    def made_by(self, task: Task, case: Case) -> str:
        """Return the SHA-256 of what predicts this case: weights or a given mask; empty for a control."""
        ...

    def predict(self, task: Task, case: Case) -> Prediction | None:
        """Return the prediction of a case, None where an external model has left no mask."""
        ...
