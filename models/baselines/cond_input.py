"""Conditioning at the input: the task's one-hot code as constant maps beside the image."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Cond-Input",
    "kind": "universal",
    "citation": "Zhang et al., DoDNet: Learning to segment multi-organ and tumors from multiple partially labeled "
    "datasets, CVPR 2021 (a baseline there)",
    "url": "https://github.com/jianpengz/DoDNet",
    "licence": "Apache-2.0",
    "original_licence": "GPL-3.0",
    "fidelity": "concept",
    "deviations": [
        "on the shared backbone, with exclusive softmax classes instead of organ and tumour sigmoids",
        "the encoder knows the task, so tasks on one image do not share an encoding",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder.first.", "encoder.stages."],
    "backbone": "shared",
}


class CondInput(SegmentationModel):
    """The shared backbone on the image with one extra channel per task, one of them filled with ones."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, [count + len(tasks) for count in tasks.channel_counts])
        self.decoder = SharedDecoder(spec)
        self.heads = DeepSupervisionHeads(spec, tasks.max_classes)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> Tensor:
        """Return the images as they are: nothing can be computed before the task is known."""
        return images_BCZYX

    def decode(self, features: Tensor, task: Task) -> list[Tensor]:
        batch, _, *size_zyx = features.shape
        codes_BTZYX = features.new_zeros(batch, len(self.tasks), *size_zyx)
        codes_BTZYX[:, self.tasks.index(task)] = 1
        encoded = self.encoder(torch.cat([features, codes_BTZYX], dim=1))
        return [logits_BKZYX[:, : task.num_classes] for logits_BKZYX in self.heads(self.decoder(encoded))]


def build(tasks: TaskSet, spec: NetworkSpec) -> CondInput:
    """Return the network for all tasks of `tasks`."""
    return CondInput(tasks, spec)
