"""MultiTalent: a sigmoid per class of every data set, trained only where that data set labels it."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.blocks.classes import class_channels
from models.blocks.placement import on_device
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "MultiTalent",
    "kind": "universal",
    "citation": "Ulrich et al., MultiTalent: A Multi-dataset Approach to Medical Image Segmentation, MICCAI 2023",
    "url": "https://github.com/MIC-DKFZ/MultiTalent",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "concept",
    "deviations": [
        "on the shared backbone; the paper trains larger networks on other data",
        "the sigmoids of one task answer for its exclusive classes, not for overlapping regions",
        "batches hold one data set, so classes of others, which add nothing to the original's loss, are left out of it",
        "data sets are drawn by the schedule of the experiment; the original's is `sqrt`, each case by 1/sqrt(n) of "
        "its data set",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {"share_names": {"default": False, "help": "classes of one name in several tasks are one class"}},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
    "published_recipe": {
        "source": "MIC-DKFZ/MultiTalent, MultiTalent_Trainer_DDP.py, on nnU-Net's trainer",
        "as": "nnunet_plain",
        "keys": {"schedule": "sqrt"},
        "not_taken": ["the learning rate changes once per epoch there, per step here"],
    },
}


class MultiTalent(SegmentationModel):
    """Shared encoder, decoder and one sigmoid channel per class; contradicting classes of data sets stay apart."""

    activation = "sigmoid"
    class_loss = "sum"

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, share_names: bool):
        super().__init__(tasks, spec)
        self.channels, count = class_channels(tasks, share_names=share_names)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = DeepSupervisionHeads(spec, count)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the decoder's features: only the reading of the head depends on the task."""
        return self.decoder(self.encoder(images_BCZYX))

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        own = on_device(self.channels[task.name], features[0].device)
        return [
            torch.cat([torch.zeros_like(logits_BAZYX[:, :1]), logits_BAZYX[:, own]], dim=1)
            for logits_BAZYX in self.heads(features)
        ]


def build(tasks: TaskSet, spec: NetworkSpec, *, share_names: bool = False) -> MultiTalent:
    """Return the network for all tasks of `tasks`."""
    return MultiTalent(tasks, spec, share_names=share_names)
