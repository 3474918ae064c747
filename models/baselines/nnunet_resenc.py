"""nnU-Net's U-Net with a residual encoder, built from the library of blocks that nnU-Net v2 itself uses."""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

from models.blocks.instance_norm import InstanceNorm
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.errors import Problem, input_error, raise_problems, suggestion
from segbench.core.task import TaskSet

CARD = {
    "title": "nnU-Net (residual encoder)",
    "kind": "single_task",
    "citation": "Isensee et al., nnU-Net Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation, "
    "MICCAI 2024",
    "url": "https://github.com/MIC-DKFZ/nnUNet",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "description",
    "deviations": [
        "patch, poolings and kernels come from the experiment's network section, not from nnU-Net's planner; a preset "
        "refuses those that its planner would not have chosen for the preset's memory",
        "preprocessing and augmentation are the harness's, the same for every model",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {
        "preset": {
            "default": "none",
            "help": "M, L or XL: nnU-Net's widths of 32 to 320, and a patch that needs at most 8, 24 or 40 GB with two "
            "samples by nnU-Net's estimate, and more than half of it; none for any size",
            "labels": {"M": "ResEnc M, 8 GB", "L": "ResEnc L, 24 GB", "XL": "ResEnc XL, 40 GB"},
        }
    },
    "encoder_keys": ["network.encoder."],
    "backbone": "own",
    "published_recipe": {"as": "nnunet_plain"},
}

BLOCKS_PER_STAGE = (1, 3, 4, 6)  # deeper stages keep the last number
BASE_FEATURES, MAX_FEATURES = 32, 320
# preset: memory of the graphics card in GB, and the count of feature-map values that nnU-Net takes for it at two
# samples (nnunetv2, residual_encoder_unet_planners.py)
PRESETS = {"M": (8, 680_000_000), "L": (24, 2_100_000_000), "XL": (40, 3_600_000_000)}


def build(tasks: TaskSet, spec: NetworkSpec, *, preset: str = "none") -> PerTaskModel:
    """Return the network for the only task of `tasks`; deep supervision at every decoder stage.

    Raises:
        InputError: for an unknown preset, and for a network section that is not of the preset's size.
    """
    task = the_task(tasks)
    stages = len(spec.features)
    network = ResidualEncoderUNet(
        input_channels=task.num_channels,
        n_stages=stages,
        features_per_stage=list(spec.features),
        conv_op=nn.Conv3d,
        kernel_sizes=[list(kernel) for kernel in spec.conv_kernels_zyx],
        strides=[[1, 1, 1], *map(list, spec.pool_kernels_zyx)],
        n_blocks_per_stage=[BLOCKS_PER_STAGE[min(stage, len(BLOCKS_PER_STAGE) - 1)] for stage in range(stages)],
        num_classes=task.num_classes,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=InstanceNorm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    if preset != "none":
        _check_preset(preset, spec, network)
    network.apply(network.initialize)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=spec.downsampling_zyx)


def memory_gb(preset: str, spec: NetworkSpec, network: ResidualEncoderUNet) -> float:
    """Return nnU-Net's estimate of the memory in GB for two samples, on the scale of a preset."""
    gigabytes, values = PRESETS[preset]
    return gigabytes * network.compute_conv_feature_map_size(spec.patch_size_zyx) / values


def _check_preset(preset: str, spec: NetworkSpec, network: ResidualEncoderUNet) -> None:
    if preset not in PRESETS:
        expected = "none, M, L or XL"
        raise input_error(
            "option preset of nnunet_resenc", found=preset, expected=expected, fix=suggestion(preset, PRESETS)
        )
    where = f"network section, for preset {preset} of nnunet_resenc"
    problems = []
    for name, width in (("base_features", BASE_FEATURES), ("max_features", MAX_FEATURES)):
        if getattr(spec, name) != width:
            found = f"{name}: {getattr(spec, name)}"
            problems.append(Problem(where, found, f"{width}", "use nnU-Net's widths or no preset"))
    if not problems:
        needed, available = memory_gb(preset, spec, network), PRESETS[preset][0]
        if not available / 2 < needed <= available:
            patch = " x ".join(map(str, spec.patch_size_zyx))
            fix = "choose a smaller patch, or another preset"
            if needed <= available:
                fix = "choose a larger patch, or no preset: on images smaller than that the presets do not differ"
            found = f"a patch of {patch}, which needs {needed:.1f} GB"
            expected = f"more than {available / 2:.0f} and at most {available} GB by nnU-Net's estimate"
            problems.append(Problem(where, found, expected, fix))
    raise_problems(problems)
