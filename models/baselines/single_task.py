"""One network per task on the shared backbone; also the network that is fine-tuned downstream."""

from __future__ import annotations

from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Single-task U-Net",
    "kind": "single_task",
    "citation": "Isensee et al., nnU-Net, Nature Methods 18, 2021",
    "url": "https://doi.org/10.1038/s41592-020-01008-z",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "concept",
    "deviations": ["one recipe for all tasks instead of a plan per data set"],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
    "published_recipe": {"as": "nnunet_plain"},
}


class SingleTask(SegmentationModel):
    """Shared backbone with the heads of its only task."""

    task_conditioned = False

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        (task,) = tasks
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = DeepSupervisionHeads(spec, task.num_classes)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return decoder features of every stage, full resolution first."""
        return self.decoder(self.encoder(images_BCZYX))

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first."""
        self.tasks.index(task)
        return self.heads(features)


def build(tasks: TaskSet, spec: NetworkSpec) -> SingleTask:
    """Return the network of one task."""
    return SingleTask(tasks, spec)
