"""Predictions of a trained network: sliding windows on the preprocessed case, back on the native grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from models.interface import SegmentationModel
from models.weights.reading import load_strictly, read_state_dict
from segbench.core.case import Case
from segbench.core.task import Task, mirror_axes_of
from segbench.data.geometry import Geometry
from segbench.data.store import open_case
from segbench.evaluation.trained import weights_digest
from segbench.experiment.context import JobContext
from segbench.inference.precision import choose, ready
from segbench.inference.sliding_window import Windows, predict_labels
from segbench.training.loop import new_model


class NetworkPredictor:
    """Predicts with the final weights of a training job; the network is built when the first case asks for it."""

    def __init__(self, context: JobContext, *, device: str):
        self.context, self.device = context, device
        self.seconds = 0.0
        self._digest = weights_digest(context)

    @cached_property
    def model(self) -> SegmentationModel:
        """The network with its weights, in evaluation mode."""
        return trained_network(self.context, device=self.device)

    @property
    def precision(self) -> str:
        """The arithmetic of the network on its device."""
        return choose(torch.device(self.device), self.context.config.inference.precision)

    def made_by(self, task: Task, case: Case) -> str:
        """Return the SHA-256 of the weights."""
        return self._digest

    def read(self, task: Task, case: Case) -> tuple[np.ndarray, Geometry]:
        """Return images_CZYX of the preprocessed case and the way back to its native grid."""
        preprocessed = open_case(self.context.folder(task.name, case.case_id))
        return preprocessed.images[:], preprocessed.geometry

    def predict(self, task: Task, case: Case, inputs: tuple[np.ndarray, Geometry]) -> np.ndarray:
        """Return the label map of the largest probability, interpolated to the native grid."""
        images_CZYX, geometry = inputs
        found = predict_labels(self.model, images_CZYX, [task], geometry, windows_of(self.context, [task]))
        return found[task.name]


def trained_network(context: JobContext, *, device: str) -> SegmentationModel:
    """Return the job's network with its final weights, in evaluation mode.

    Raises:
        InputError: there are no weights, or they were made from other inputs than the config asks for.
    """
    path = context.trained_weights()
    model = new_model(context)
    assert isinstance(model, SegmentationModel), "an objective predicts nothing"
    load_strictly(model, read_state_dict(path), path)
    return ready(model, device)


def windows_of(context: JobContext, tasks: Sequence[Task]) -> Windows:
    """Return the windows, mirroring and precision of the job for tasks that are predicted together."""
    inference = context.config.inference
    axes = mirror_axes_of(tasks, inference.mirror_axes, mirror_sides=context.training.mirror_sides)
    return Windows(context.network.patch_size_zyx, inference.step, axes, inference.precision)
