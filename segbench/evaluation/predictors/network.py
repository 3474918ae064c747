"""Predictions of a trained network: sliding windows on the preprocessed case, back on the native grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from models.interface import SegmentationModel
from models.weights.reading import load_strictly, read_state_dict
from segbench.core.case import Case
from segbench.core.task import Task, mirror_axes_of
from segbench.data.store import open_case
from segbench.evaluation.trained import weights_digest
from segbench.experiment.context import JobContext
from segbench.inference.sliding_window import predict_probabilities
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

    def made_by(self, task: Task, case: Case) -> str:
        """Return the SHA-256 of the weights."""
        return self._digest

    def predict(self, task: Task, case: Case) -> np.ndarray:
        """Return the label map of the largest probability, interpolated to the native grid."""
        preprocessed = open_case(self.context.folder(task.name, case.case_id))
        found = probabilities(self.model, self.context, preprocessed.images[:], [task])[task.name]
        return preprocessed.geometry.probabilities_to_native(found)


def trained_network(context: JobContext, *, device: str) -> SegmentationModel:
    """Return the job's network with its final weights, in evaluation mode.

    Raises:
        InputError: there are no weights, or they were made from other inputs than the config asks for.
    """
    path = context.trained_weights()
    model = new_model(context)
    assert isinstance(model, SegmentationModel), "an objective predicts nothing"
    load_strictly(model, read_state_dict(path), path)
    return model.to(device).eval()


def probabilities(
    model: SegmentationModel, context: JobContext, images_CZYX: np.ndarray, tasks: Sequence[Task]
) -> dict[str, np.ndarray]:
    """Return task name -> probabilities_KZYX of a preprocessed image, with the windows and mirroring of the config."""
    config = context.config
    return predict_probabilities(
        model,
        images_CZYX,
        tasks,
        patch_size_zyx=config.network.patch_size_zyx,
        step=config.inference.step,
        mirror_axes=mirror_axes_of(tasks, config.inference.mirror_axes, mirror_sides=context.training.mirror_sides),
    )
