"""SegResNet with group norm, from MONAI: the network of SuPreM's released weights.

Axis legend: B batch, C channel, K class, Z Y X space.
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets import SegResNet
from torch import Tensor

from models.blocks.own_network import PerTaskModel, answers_of, coarser_heads, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "SegResNet (group norm)",
    "kind": "single_task",
    "citation": "Myronenko, 3D MRI Brain Tumor Segmentation Using Autoencoder Regularization, BrainLes 2018",
    "url": "https://github.com/Project-MONAI/MONAI",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "description",
    "deviations": [
        "MONAI's SegResNet without the auto-encoder branch and without dropout",
        "four stages with poolings of 2x2x2 whatever the experiment pools; width in steps of 8, for its group norms",
        "under the equal recipe SGD replaces the published Adam of learning rate 1e-4",
    ],
    "channels": "any",
    "patch_multiple": [8, 8, 8],
    "options": {
        "deep_supervision": {
            "default": False,
            "help": "whether the coarser decoder stages answer too, which the original's do not",
            "labels": {True: "deep supervision"},
        }
    },
    "encoder_keys": ["network.convInit.", "network.down_layers."],
    "backbone": "own",
    "published_recipe": {
        "source": "Project-MONAI/model-zoo, models/brats_mri_segmentation/configs/train.json, MONAI's training of this "
        "network on BraTS 2018",
        "keys": {
            "optimiser": "adam",
            "initial_learning_rate": 0.0001,
            "weight_decay": 1e-05,
            "learning_rate_schedule": "cosine",
            "gradient_clip": None,
            "batch_size": 1,
        },
        "not_taken": [
            "the learning rate changes once per epoch there, per step here",
            "the Dice loss alone, on sigmoids of overlapping regions",
            "the paper's own schedule was not read",
        ],
    },
}


class SupervisedSegResNet(SegResNet):
    """MONAI's SegResNet, which also answers at strides 2 and 4 when `deep_supervision` is set."""

    def __init__(self, *, init_filters: int, out_channels: int, deep_supervision: bool, **arguments: Any):
        super().__init__(init_filters=init_filters, out_channels=out_channels, **arguments)
        self.coarser = coarser_heads([2 * init_filters, 4 * init_filters], out_channels, deep_supervision)

    def forward(self, images_BCZYX: Tensor) -> Tensor | list[Tensor]:  # type: ignore[override]
        """Return `logits_BKZYX` at full resolution; with deep supervision a list, then strides 2 and 4."""
        x_BCZYX, skips = self.encode(images_BCZYX)
        skips.pop()
        decoded = []
        for enlarge, blocks in zip(self.up_samples, self.up_layers, strict=True):
            x_BCZYX = blocks(enlarge(x_BCZYX) + skips.pop())
            decoded.append(x_BCZYX)
        logits = self.conv_final(x_BCZYX)
        return [logits, *answers_of(self.coarser, decoded[-2::-1])] if self.coarser else logits


def build(tasks: TaskSet, spec: NetworkSpec, *, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    network = SupervisedSegResNet(
        init_filters=max(8, spec.base_features // 8 * 8),
        in_channels=task.num_channels,
        out_channels=task.num_classes,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
        deep_supervision=deep_supervision,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
