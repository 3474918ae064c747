"""UniSeg: a learnable universal prompt fused with image features selects the task (Ye et al., MICCAI 2023)."""

from __future__ import annotations

from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "UniSeg",
    "kind": "universal",
    "citation": "Ye et al., UniSeg: A Prompt-driven Universal Segmentation Model as well as A Strong Representation "
    "Learner, MICCAI 2023, arXiv:2304.03493",
    "url": "https://arxiv.org/abs/2304.03493",
    "licence": "Apache-2.0",
    "original_licence": "non-commercial, all rights reserved",
    "fidelity": "numerical",
    "deviations": [
        "the prompt follows another patch size by trilinear interpolation; the original needs its own patch size",
        "one stem per channel count and one output channel per class of the tasks at hand; the original has stems for "
        "1, 2 and 4 channels and 4 output channels",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {
        "prompt": {
            "default": "universal",
            "help": "universal, or an ablation: none; fixed_one_hot, the task's code as constant maps; multiple, a "
            "learned prompt per task without fusion",
            "labels": {
                "none": "no prompt",
                "fixed_one_hot": "fixed one-hot prompt",
                "multiple": "several prompts",
            },
        },
        "position": {
            "at_least": 0,
            "default": 0,
            "help": "0 appends the prompt at the bottleneck, n at the n-th decoder stage",
            "label": "prompt at decoder stage {value}",
        },
    },
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
    "published_recipe": {
        "source": "yeerwen/UniSeg, UniSeg_Trainer.py and dataset_loading.py",
        "as": "nnunet_plain",
        "keys": {"batch_size": 2},
        "not_taken": ["the learning rate changes once per epoch there, per step here"],
    },
    "original_training": {
        "source": "yeerwen/UniSeg, UniSeg_Planner3D.py and UniSeg_Trainer.py",
        "network": {
            "patch_size_zyx": [64, 192, 192],
            "base_features": 32,
            "max_features": 320,
            "pool_kernels_zyx": [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
            "conv_kernels_zyx": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        },
        "steps_per_task": 50_000,
    },
}


def build(tasks: TaskSet, spec: NetworkSpec, *, prompt: str = "universal", position: int = 0):
    """Return the network for a set of tasks."""
    from models.uniseg.network import UniSeg

    return UniSeg(tasks, spec, prompt=prompt, position=position)
