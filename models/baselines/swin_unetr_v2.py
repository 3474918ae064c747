"""SwinUNETR-V2: Swin UNETR with a residual convolution block before each stage of its transformer, from MONAI."""

from __future__ import annotations

from models.blocks.own_network import PerTaskModel
from models.blocks.swin_unetr import per_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "SwinUNETR-V2",
    "kind": "single_task",
    "citation": "He et al., SwinUNETR-V2: Stronger Swin Transformers with Stagewise Convolutions for 3D Medical Image "
    "Segmentation, MICCAI 2023",
    "url": "https://github.com/Project-MONAI/MONAI",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "description",
    "deviations": [
        "MONAI's implementation (`use_v2`); feature size 48 at the base width 32, otherwise the nearest multiple of 12",
        "under the equal recipe SGD replaces the published AdamW",
    ],
    "channels": "any",
    "patch_multiple": [32, 32, 32],
    "options": {
        "window_size": {
            "at_least": 1,
            "default": 7,
            "help": "edge of an attention window in tokens; 4 is faster on small patches",
        },
        "deep_supervision": {
            "default": False,
            "help": "whether the coarser decoder stages answer too, which the original's do not",
            "labels": {True: "deep supervision"},
        },
    },
    "encoder_keys": ["network.swinViT."],
    "backbone": "own",
}


def build(tasks: TaskSet, spec: NetworkSpec, *, window_size: int = 7, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    options = {"window_size": window_size, "use_v2": True, "deep_supervision": deep_supervision}
    return per_task(tasks, spec, multiple_zyx=CARD["patch_multiple"], **options)
