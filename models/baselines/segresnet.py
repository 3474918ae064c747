"""SegResNet: a residual encoder with a light decoder and deep supervision, from MONAI."""

from __future__ import annotations

from monai.networks.nets import SegResNetDS

from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.errors import input_error
from segbench.core.task import TaskSet

CARD = {
    "title": "SegResNet",
    "kind": "single_task",
    "citation": "Myronenko, 3D MRI Brain Tumor Segmentation Using Autoencoder Regularization, BrainLes 2018",
    "url": "https://github.com/Project-MONAI/MONAI",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "description",
    "deviations": [
        "without the auto-encoder branch; deep supervision and instance normalisation as in MONAI's SegResNetDS",
        "axes that the experiment pools less often are pooled late, after anisotropic stages",
        "five stages at most, so that the width does not pass 16 times the first",
        "under the equal recipe SGD replaces the published AdamW of learning rate 2e-4",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["network.encoder."],
    "backbone": "own",
    "published_recipe": {
        "source": "Project-MONAI/research-contributions, auto3dseg/algorithm_templates/segresnet/configs/"
        "hyper_parameters.yaml and scripts/segmenter.py, which train MONAI's SegResNetDS",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0002,
            "weight_decay": 1e-05,
            "learning_rate_schedule": "cosine",
            "warmup": 0.01,
            "gradient_clip": None,
        },
        "not_taken": [
            "3 of 300 epochs of warm-up from a tenth of the learning rate, stated here as a fraction of the run",
            "the learning rate changes once per epoch there, per step here",
            "one patch per GPU, more where its memory allows",
            "training ends early there when the Dice of validation cases stands still",
        ],
    },
}

BLOCKS_DOWN = (1, 2, 2, 4, 4)


def build(tasks: TaskSet, spec: NetworkSpec) -> PerTaskModel:
    """Return the network for the only task of `tasks`; poolings other than 1 and 2 raise `InputError`."""
    task = the_task(tasks)
    if any(step not in (1, 2) for kernel in spec.pool_kernels_zyx for step in kernel):
        raise input_error(
            "network.pool_kernels_zyx",
            found=spec.pool_kernels_zyx,
            expected="steps of 1 or 2 for segresnet",
            fix="split larger steps into several poolings",
        )
    largest = max(spec.downsampling_zyx)
    network = SegResNetDS(
        init_filters=spec.base_features,
        in_channels=task.num_channels,
        out_channels=task.num_classes,
        norm="instance",
        blocks_down=BLOCKS_DOWN[: len(spec.features)],
        dsdepth=min(4, len(spec.pool_kernels_zyx)),
        resolution=tuple(largest / factor for factor in spec.downsampling_zyx),
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=network.shape_factor())
