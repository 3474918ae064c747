"""Predictions of a control: fitted on the training cases of a task, on the preprocessed grid; torch is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.controls import load_control
from segbench.core.case import Case
from segbench.core.task import Task
from segbench.data.store import PreprocessedCase, open_case
from segbench.experiment.context import JobContext


class ControlPredictor:
    """Predicts with a control, fitted per task when its first case asks for it."""

    def __init__(self, context: JobContext):
        self.context = context
        self.seconds = 0.0
        self._control = load_control(context.job.model)
        self._fitted: dict[str, Any] = {}

    def made_by(self, task: Task, case: Case) -> str:
        """Return nothing: a control is its code and its training cases, which the identity names."""
        return ""

    def read(self, task: Task, case: Case) -> PreprocessedCase:
        """Return the preprocessed case."""
        return open_case(self.context.folder(task.name, case.case_id))

    def predict(self, task: Task, case: Case, inputs: PreprocessedCase) -> np.ndarray:
        """Return the control's label map."""
        if task.name not in self._fitted:
            training = [self.context.folder(task.name, name) for name in self.context.training_cases(task.name)]
            self._fitted[task.name] = self._control.fit([open_case(folder) for folder in training], task)
        labels_ZYX = self._control.predict(self._fitted[task.name], inputs, task)
        return inputs.geometry.labels_to_native(labels_ZYX)
