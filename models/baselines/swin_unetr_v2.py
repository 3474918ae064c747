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
        "under the equal recipe SGD replaces the published AdamW of learning rate 1e-4",
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
        "source": "Project-MONAI/research-contributions, SwinUNETR/BTCV/main.py, trainer.py and utils/data_utils.py, "
        "which the paper's abstract names as its recipe, with minimum changes across tasks",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0001,
            "weight_decay": 1e-05,
            "learning_rate_schedule": "cosine",
            "warmup": 0.01,
            "gradient_clip": None,
            "batch_size": 4,
        },
        "not_taken": [
            "50 of 5000 epochs of warm-up, stated here as a fraction of the run",
            "the learning rate changes once per epoch there, per step here",
            "the batch is four patches of one volume",
            "README.md has 2e-4 for several GPUs; the changes for each task of the paper were not read",
        ],
    },
}


def build(tasks: TaskSet, spec: NetworkSpec, *, window_size: int = 7, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    options = {"window_size": window_size, "use_v2": True, "deep_supervision": deep_supervision}
    return per_task(tasks, spec, multiple_zyx=CARD["patch_multiple"], **options)
