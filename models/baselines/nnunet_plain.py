"""nnU-Net's plain convolutional U-Net, built from the library of blocks that nnU-Net v2 itself uses."""

from __future__ import annotations

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from models.blocks.instance_norm import InstanceNorm
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "nnU-Net (plain)",
    "kind": "single_task",
    "citation": "Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image "
    "segmentation, Nature Methods 2021",
    "url": "https://github.com/MIC-DKFZ/nnUNet",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "description",
    "deviations": [
        "patch, poolings and widths come from the experiment's network section, not from nnU-Net's planner",
        "preprocessing, augmentation and training are the harness's, the same for every model",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {
        "convolutions_per_stage": {
            "at_least": 1,
            "default": 2,
            "help": "convolutions in each encoder and decoder stage",
        }
    },
    "encoder_keys": ["network.encoder."],
    "backbone": "own",
    "published_recipe": {
        "source": "MIC-DKFZ/nnUNet 2.8, nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py",
        "keys": {
            "optimiser": "sgd",
            "initial_learning_rate": 0.01,
            "momentum": 0.99,
            "weight_decay": 3e-05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "gradient_clip": 12.0,
        },
        "not_taken": [
            "the learning rate changes once per epoch there, per step here",
            "batch size and patch come from the plan",
        ],
    },
}


def build(tasks: TaskSet, spec: NetworkSpec, *, convolutions_per_stage: int = 2) -> PerTaskModel:
    """Return the network for the only task of `tasks`; deep supervision at every decoder stage."""
    task = the_task(tasks)
    network = PlainConvUNet(
        input_channels=task.num_channels,
        n_stages=len(spec.features),
        features_per_stage=list(spec.features),
        conv_op=nn.Conv3d,
        kernel_sizes=[list(kernel) for kernel in spec.conv_kernels_zyx],
        strides=[[1, 1, 1], *map(list, spec.pool_kernels_zyx)],
        n_conv_per_stage=convolutions_per_stage,
        num_classes=task.num_classes,
        n_conv_per_stage_decoder=convolutions_per_stage,
        conv_bias=True,
        norm_op=InstanceNorm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    network.apply(network.initialize)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=spec.downsampling_zyx)
