"""One network and one head for all tasks, without any information on the task: the lower bound of conditioning."""

from __future__ import annotations

from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Cond-NO",
    "kind": "universal",
    "citation": "Zhang et al., DoDNet: Learning to segment multi-organ and tumors from multiple partially labeled "
    "datasets, CVPR 2021 (a baseline there)",
    "url": "https://github.com/jianpengz/DoDNet",
    "licence": "Apache-2.0",
    "original_licence": "GPL-3.0",
    "fidelity": "concept",
    "deviations": [
        "on the shared backbone, with exclusive softmax classes instead of organ and tumour sigmoids",
        "the head has as many channels as the task with most classes; a task reads the first of them",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
}


class CondNone(SegmentationModel):
    """Shared encoder, decoder and head; the answer is the same for every task."""

    task_conditioned = False

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = DeepSupervisionHeads(spec, tasks.max_classes)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        return self.encoder(images_BCZYX)

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        return [logits_BKZYX[:, : task.num_classes] for logits_BKZYX in self.heads(self.decoder(features))]


def build(tasks: TaskSet, spec: NetworkSpec) -> CondNone:
    """Return the network for all tasks of `tasks`."""
    return CondNone(tasks, spec)
