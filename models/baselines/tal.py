"""Target-adaptive loss: one softmax over the classes of all tasks; what a task does not label counts as background."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.blocks.classes import class_channels
from models.blocks.placement import on_device
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "TAL",
    "kind": "universal",
    "citation": "Fang and Yan, Multi-organ Segmentation over Partially Labeled Datasets with Multi-scale Feature "
    "Abstraction, IEEE Transactions on Medical Imaging 2020",
    "url": "https://arxiv.org/abs/2001.00208",
    "licence": "Apache-2.0",
    "original_licence": "",
    "fidelity": "concept",
    "deviations": [
        "on the shared backbone, without the paper's pyramid input and output network",
        "classes of different data sets stay apart even when they carry one name; option share_names joins them",
        "the merged background is used at inference as in training",
        "under the equal recipe SGD replaces the published RMSprop of learning rate 2e-4",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {"share_names": {"default": False, "help": "classes of one name in several tasks are one class"}},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
    "published_recipe": {
        "source": "DIAL-RPI/PIPO-FAN, pipo_fan/train_sf_partial.py",
        "keys": {},
        "not_taken": [
            "RMSprop, which is not offered here: learning rate 2e-4, times 0.99 every 40 epochs, momentum 0.9",
            "batches of eight slabs of three slices of 224x224; each epoch trains one data set",
            "the network starts from one that was trained on a single data set with 2e-3 (train_concave0.py)",
        ],
    },
}


class TAL(SegmentationModel):
    """Shared encoder, decoder and a head over background and all classes.

    A task's background probability is the sum over background and all classes of the others, so its logit is their
    log-sum-exp: plain Dice and cross-entropy on the task's own channels are then the target-adaptive loss.
    """

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, share_names: bool):
        super().__init__(tasks, spec)
        self.channels, count = class_channels(tasks, share_names=share_names)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = DeepSupervisionHeads(spec, count + 1)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the decoder's features: only the reading of the head depends on the task."""
        return self.decoder(self.encoder(images_BCZYX))

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        return [self._own_classes(logits_BAZYX, task) for logits_BAZYX in self.heads(features)]

    def _own_classes(self, logits_BAZYX: Tensor, task: Task) -> Tensor:
        own = [channel + 1 for channel in self.channels[task.name]]
        rest = [channel for channel in range(logits_BAZYX.shape[1]) if channel not in own]
        own_K, rest_K = (on_device(channels, logits_BAZYX.device) for channels in (own, rest))
        background_B1ZYX = logits_BAZYX[:, rest_K].logsumexp(dim=1, keepdim=True)
        return torch.cat([background_B1ZYX, logits_BAZYX[:, own_K]], dim=1)


def build(tasks: TaskSet, spec: NetworkSpec, *, share_names: bool = False) -> TAL:
    """Return the network for all tasks of `tasks`."""
    return TAL(tasks, spec, share_names=share_names)
