"""One shared encoder and decoder, one set of output heads per task."""

from __future__ import annotations

from torch import Tensor, nn

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Multi-head",
    "kind": "universal",
    "citation": "Chen et al., Med3D, arXiv:1904.00625",
    "url": "https://arxiv.org/abs/1904.00625",
    "licence": "Apache-2.0",
    "original_licence": "MIT",
    "fidelity": "concept",
    "deviations": ["the shared backbone instead of the original network"],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
}


class MultiHead(SegmentationModel):
    """Shared encoder and decoder; each task has its own deep-supervision heads."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = nn.ModuleDict({task.name: DeepSupervisionHeads(spec, task.num_classes) for task in tasks})
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return decoder features of every stage, full resolution first: all that tasks share."""
        return self.decoder(self.encoder(images_BCZYX))

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of the task's own heads."""
        self.tasks.index(task)
        return self.heads[task.name](features)


def build(tasks: TaskSet, spec: NetworkSpec) -> MultiHead:
    """Return the network for a set of tasks."""
    return MultiHead(tasks, spec)
