"""Swin UNETR: a shifted-window transformer encoder with a convolutional decoder, from MONAI."""

from __future__ import annotations

from monai.networks.nets import SwinUNETR

from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "Swin UNETR",
    "kind": "single_task",
    "citation": "Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI "
    "Images, BrainLes 2021",
    "url": "https://github.com/Project-MONAI/MONAI",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "version": "1",
    "fidelity": "description",
    "deviations": [
        "MONAI's implementation; feature size 48 at the base width 32, otherwise the nearest multiple of 12",
        "without self-supervised weights unless an initialisation brings them",
        "trained with the harness's SGD recipe instead of AdamW",
    ],
    "channels": "any",
    "patch_multiple": [32, 32, 32],
    "options": {
        "window_size": {"default": 7, "help": "edge of an attention window in tokens; 4 is faster on small patches"}
    },
    "encoder_keys": ["network.swinViT."],
    "backbone": "own",
}


def build(tasks: TaskSet, spec: NetworkSpec, *, window_size: int = 7) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    network = SwinUNETR(
        in_channels=task.num_channels,
        out_channels=task.num_classes,
        window_size=window_size,
        feature_size=max(1, round(spec.base_features * 1.5 / 12)) * 12,  # three heads of even width need 12
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
