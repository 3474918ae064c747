"""MedNeXt: a U-Net of ConvNeXt-like blocks with depth-wise large kernels, from MONAI."""

from __future__ import annotations

from monai.networks.nets import MedNeXt

from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.errors import input_error, suggestion
from segbench.core.task import TaskSet

CARD = {
    "title": "MedNeXt",
    "kind": "single_task",
    "citation": "Roy et al., MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation, "
    "MICCAI 2023",
    "url": "https://github.com/MIC-DKFZ/MedNeXt",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "version": "1",
    "fidelity": "description",
    "deviations": [
        "MONAI's implementation; kernels are trained from scratch, without the up-sampling of smaller trained kernels",
        "trained with the harness's SGD recipe instead of AdamW",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {
        "variant": {"default": "S", "help": "S, B, M or L, the sizes of the paper"},
        "kernel_size": {"default": 3, "help": "edge of the depth-wise kernels, 3 or 5 in the paper"},
    },
    "encoder_keys": ["network.stem.", "network.enc_stages.", "network.down_blocks.", "network.bottleneck."],
    "backbone": "own",
}

# variant: expansion ratio and number of blocks, encoder stages first, bottleneck last; the decoder mirrors them
VARIANTS = {
    "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": ((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": ((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


def build(tasks: TaskSet, spec: NetworkSpec, *, variant: str = "S", kernel_size: int = 3) -> PerTaskModel:
    """Return the network for the only task of `tasks`; an unknown variant raises `InputError`."""
    task = the_task(tasks)
    if variant not in VARIANTS:
        raise input_error(
            "option variant of mednext", found=variant, expected="S, B, M or L", fix=suggestion(variant, VARIANTS)
        )
    ratios, blocks = VARIANTS[variant]
    network = MedNeXt(
        init_filters=spec.base_features,
        in_channels=task.num_channels,
        out_channels=task.num_classes,
        encoder_expansion_ratio=ratios[:-1],
        bottleneck_expansion_ratio=ratios[-1],
        decoder_expansion_ratio=ratios[-2::-1],
        kernel_size=kernel_size,
        deep_supervision=True,
        use_residual_connection=True,
        blocks_down=blocks[:-1],
        blocks_bottleneck=blocks[-1],
        blocks_up=blocks[-2::-1],
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
