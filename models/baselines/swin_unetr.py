"""Swin UNETR: a shifted-window transformer encoder with a convolutional decoder, from MONAI."""

from __future__ import annotations

from models.blocks.own_network import PerTaskModel
from models.blocks.swin_unetr import per_task
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
    "fidelity": "description",
    "deviations": [
        "MONAI's implementation; feature size 48 at the base width 32, otherwise the nearest multiple of 12",
        "without self-supervised weights unless an initialisation brings them",
        "under the equal recipe SGD replaces the published AdamW of learning rate 1e-4 to 1e-3",
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
    "published_recipe": {
        "source": "MIC-DKFZ/MedNeXt, "
        "nnunet_mednext/training/network_training/nnUNet_variants/baselines/nnUNetTrainerV2_SwinUNETR.py, "
        "a port by the authors of MedNeXt",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0001,
            "epsilon": 0.0001,
            "weight_decay": 3e-05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "gradient_clip": 12.0,
        },
        "not_taken": [
            "the learning rate changes once per epoch there, per step here",
            "the port offers 1e-3, and 1e-4 and 5e-4 for patches of 128 voxels; taken is the one that it gives for 128",
            "its own authors' SwinUNETR/BTCV/main.py: AdamW, by default 1e-4, weight decay 1e-5, cosine, no clip",
        ],
    },
}


def build(tasks: TaskSet, spec: NetworkSpec, *, window_size: int = 7, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    multiple_zyx = CARD["patch_multiple"]
    return per_task(tasks, spec, multiple_zyx=multiple_zyx, window_size=window_size, deep_supervision=deep_supervision)
