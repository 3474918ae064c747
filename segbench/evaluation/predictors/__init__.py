"""Where predicted label maps come from: one protocol, three implementations (network, control, masks)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from segbench.core.case import Case
from segbench.core.task import Task


class Predictor(Protocol):
    """Predicts the test cases of one job."""

    seconds: float
    """Time that was spent before the first case, such as by an external command."""

    def made_by(self, task: Task, case: Case) -> str:
        """Return the SHA-256 of what predicts this case: weights or a given mask; empty for a control."""
        ...

    def read(self, task: Task, case: Case) -> Any:
        """Return what `predict` needs of a case; it is called in another thread, while a case before is predicted."""
        ...

    def predict(self, task: Task, case: Case, inputs: Any) -> np.ndarray | None:
        """Return labels_XYZ (uint8, class values of the card) on the case's grid; None where there is no mask.

        Args:
            task: task of the case.
            case: test case.
            inputs: what `read` returned for it.
        """
        ...
