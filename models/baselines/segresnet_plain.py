"""SegResNet with group norm and without deep supervision, from MONAI: the network of SuPreM's released weights."""

from __future__ import annotations

from monai.networks.nets import SegResNet

from models.blocks.own_network import PerTaskModel, the_task
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
    ],
    "channels": "any",
    "patch_multiple": [8, 8, 8],
    "options": {},
    "encoder_keys": ["network.convInit.", "network.down_layers."],
    "backbone": "own",
}


def build(tasks: TaskSet, spec: NetworkSpec) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    network = SegResNet(
        init_filters=max(8, spec.base_features // 8 * 8),
        in_channels=task.num_channels,
        out_channels=task.num_classes,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
