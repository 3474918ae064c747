"""What the network does, in one line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Template",
    "kind": "universal",  # one network for all tasks; "single_task" trains one network per task
    "citation": "authors, title, venue and year",
    "url": "",
    "licence": "Apache-2.0",
    "original_licence": "",
    "fidelity": "concept",  # or "description": as the paper describes; "numerical": shown to give the same outputs
    "deviations": [],  # every difference from the original, in words
    "channels": "any",  # or the channel counts that it accepts, such as [1, 2]
    "patch_multiple": "spec",  # input sizes are multiples of the poolings' product
    "options": {},  # name: {"default": value, "help": "what it does"}, and the same argument of build
    "encoder_keys": ["encoder.", "decoder."],  # tensors that another network may start from
    "backbone": "shared",
}


class Network(SegmentationModel):
    """The shared backbone with one head, and an offset per task and class: put your concept in its place."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = DeepSupervisionHeads(spec, tasks.max_classes)
        self.apply(initialise_weights)
        self.offsets = nn.ParameterList(0.1 * torch.randn(task.num_classes) for task in tasks)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return features that every task shares; several tasks on one image call this once."""
        return self.encoder(images_BCZYX)

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of one task at every scale, full resolution first."""
        offset_K111 = self.offsets[self.tasks.index(task)][:, None, None, None]
        return [scale[:, : task.num_classes] + offset_K111 for scale in self.heads(self.decoder(features))]


def build(tasks: TaskSet, spec: NetworkSpec) -> Network:
    """Return the network for all tasks of `tasks`; further arguments are the card's options."""
    return Network(tasks, spec)
