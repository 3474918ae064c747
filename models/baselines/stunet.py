"""STU-Net as released: a residual U-Net whose depth and width scale together, with nearest-neighbour up-sampling.

Axis legend: B batch, C channel, K class, Z Y X space. Written from the facts of the released network (Huang et al.,
2023). Modules have the names of the released state dict, so that it loads as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import LEAKY_SLOPE, NORM_EPS, Triple, initialise_weights, same_padding
from models.blocks.instance_norm import InstanceNorm
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from models.weights.official import check_arguments, count_of, kernel_zyx, majority, shapes_of, whole_numbers
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error, suggestion
from segbench.core.task import TaskSet

CARD = {
    "title": "STU-Net",
    "kind": "single_task",
    "citation": "Huang et al., STU-Net: Scalable and Transferable Medical Image Segmentation Models Empowered by "
    "Large-Scale Supervised Pre-training, arXiv 2304.06716, 2023",
    "url": "https://github.com/uni-medical/STU-Net",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "numerical",
    "deviations": [
        "the poolings are the first five of the experiment's network section; the original takes nnU-Net's plan",
        "widths follow the config's base; with base 32 they are the original's",
        "without released weights unless an initialisation brings them",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {
        "size": {
            "default": "B",
            "help": "S, B, L or H, the sizes of the paper: 15, 58, 440 and 1457 million parameters",
            "label": "{value}",
            "always_named": True,
        }
    },
    "encoder_keys": ["network.conv_blocks_context."],
    "backbone": "own",
    "published_recipe": {
        "source": "uni-medical/STU-Net, nnUNet-1.7.1/nnunet/training/network_training/STUNetTrainer.py, on the trainer "
        "of nnU-Net v1",
        "as": "nnunet_plain",
        "keys": {},
        "not_taken": [
            "the learning rate changes once per epoch there, per step here",
            "batch size and patch come from the plan",
            "fine-tuning of released weights starts at 1e-3 there",
        ],
    },
}
OFFICIAL = "stunet_official"
WHERE = "official STU-Net weights"

# size: first width as a multiple of half the config's base, and blocks per stage
SIZES = {"S": (1, 1), "B": (2, 1), "L": (4, 2), "H": (6, 3)}
WIDEST = 16  # times the first width
STAGES = 6


class ResidualBlock(nn.Module):
    """Two convolutions, each followed by instance norm, plus a shortcut; the stride is in the first convolution.

    The shortcut is the input, or a convolution of 1x1x1 when `project` is set.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel_zyx: Triple, stride_zyx: Triple = (1, 1, 1), project: bool = False
    ):
        super().__init__()
        padding = same_padding(kernel_zyx)
        self.conv1 = nn.Conv3d(inputs, outputs, kernel_zyx, stride_zyx, padding)
        self.norm1 = InstanceNorm(outputs, eps=NORM_EPS, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, kernel_zyx, padding=padding)
        self.norm2 = InstanceNorm(outputs, eps=NORM_EPS, affine=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride_zyx) if project else None

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features of `outputs` channels."""
        shortcut = x_BCZYX if self.conv3 is None else self.conv3(x_BCZYX)
        x_BCZYX = functional.leaky_relu(self.norm1(self.conv1(x_BCZYX)), LEAKY_SLOPE)
        return functional.leaky_relu(self.norm2(self.conv2(x_BCZYX)) + shortcut, LEAKY_SLOPE)


class UpSampling(nn.Module):
    """Nearest-neighbour up-sampling, then a convolution of 1x1x1 to another width."""

    def __init__(self, inputs: int, outputs: int, factor_zyx: Triple):
        super().__init__()
        self.factor_zyx = tuple(float(factor) for factor in factor_zyx)
        self.conv = nn.Conv3d(inputs, outputs, 1)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features on the finer grid."""
        return self.conv(functional.interpolate(x_BCZYX, scale_factor=self.factor_zyx, mode="nearest"))


def _stage(
    inputs: int, outputs: int, *, blocks: int, kernel_zyx: Triple, stride_zyx: Triple = (1, 1, 1)
) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, kernel_zyx=kernel_zyx, stride_zyx=stride_zyx, project=True)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, kernel_zyx=kernel_zyx) for _ in range(blocks - 1)))


class STUNet(nn.Module):
    """Residual encoder and decoder of one width and depth per resolution.

    Args:
        channels, classes: of the image and of the logits.
        widths, blocks, kernels_zyx: one entry per encoder stage, full resolution first, bottleneck last.
        pools_zyx: the down-sampling factors between stages, one fewer.
        deep_supervision: whether every decoder stage answers, or only the finest.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        kernels_zyx: Sequence[Triple],
        pools_zyx: Sequence[Triple],
        deep_supervision: bool = True,
    ):
        super().__init__()
        self.deep_supervision = deep_supervision
        self.conv_blocks_context = nn.ModuleList(
            _stage(before, width, blocks=count, kernel_zyx=kernel, stride_zyx=stride)
            for before, width, count, kernel, stride in zip(
                [channels, *widths[:-1]], widths, blocks, kernels_zyx, [(1, 1, 1), *pools_zyx], strict=True
            )
        )
        self.upsample_layers = nn.ModuleList()
        self.conv_blocks_localization = nn.ModuleList()
        self.seg_outputs = nn.ModuleList()
        for level in reversed(range(len(pools_zyx))):
            width = widths[level]
            self.upsample_layers.append(UpSampling(widths[level + 1], width, pools_zyx[level]))
            self.conv_blocks_localization.append(
                _stage(2 * width, width, blocks=blocks[level], kernel_zyx=kernels_zyx[level])
            )
            self.seg_outputs.append(nn.Conv3d(width, classes, 1))

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first."""
        skips = []
        x_BCZYX = images_BCZYX
        for stage in self.conv_blocks_context:
            x_BCZYX = stage(x_BCZYX)
            skips.append(x_BCZYX)
        skips.pop()
        logits = []
        for up, stage, head in zip(self.upsample_layers, self.conv_blocks_localization, self.seg_outputs, strict=True):
            x_BCZYX = stage(torch.cat([up(x_BCZYX), skips.pop()], dim=1))
            logits.append(head(x_BCZYX))
        return logits[::-1] if self.deep_supervision else logits[-1:]


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> STUNet:
    """Return the network with these weights, in evaluation mode; it answers as the original does.

    Args:
        state_dict: of the released network; it may be wrapped in a checkpoint.
        arch: arguments of the original's constructor. Only `pool_op_kernel_sizes` (2x2x2 everywhere when absent) and
            `enable_deep_supervision` (on when absent) are needed; the rest follows from the shapes.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for poolings that do not fit the stages.
    """
    check_arguments(arch, WHERE, named=["pool_op_kernel_sizes"], enable_deep_supervision=(True, False))
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)
    stages = count_of(shapes, r"conv_blocks_context\.(\d{1,2})\.")
    network = STUNet(
        channels=majority(shapes, _first(0, ("conv1.weight", "conv3.weight")), inputs_of, where=WHERE),
        classes=majority(
            shapes,
            [name for name in shapes if re.match(r"seg_outputs\.\d+\.(weight|bias)$", name)],
            outputs_of,
            where=WHERE,
        ),
        widths=[
            majority(
                shapes,
                _first(stage, ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")),
                outputs_of,
                where=WHERE,
            )
            for stage in range(stages)
        ],
        blocks=[count_of(shapes, rf"conv_blocks_context\.{stage}\.(\d{{1,3}})\.") for stage in range(stages)],
        kernels_zyx=[
            majority(shapes, _first(stage, ("conv1.weight", "conv2.weight")), kernel_zyx, where=WHERE)
            for stage in range(stages)
        ],
        pools_zyx=_pools_zyx(arch.get("pool_op_kernel_sizes"), stages),
        deep_supervision=bool(arch.get("enable_deep_supervision", True)),
    )
    load_strictly(network, state, WHERE)
    return network.eval()


def _first(stage: int, ends: Sequence[str]) -> list[str]:
    return [f"conv_blocks_context.{stage}.0.{end}" for end in ends]


def _pools_zyx(given: object, stages: int) -> list[Triple]:
    """Return one factor per pooling; a list of another length, or an entry that is not three numbers, is a problem."""
    if stages < 2:
        found = f"{stages} stage(s) of conv_blocks_context"
        raise input_error(WHERE, found=found, expected="at least 2", fix="use a checkpoint of this network")
    if given is None:
        return [(2, 2, 2)] * (stages - 1)
    what = f"{stages - 1} triples of whole numbers, one per pooling,"
    return whole_numbers(given, (stages - 1, 3), f"{WHERE}, pool_op_kernel_sizes", what)


def build(tasks: TaskSet, spec: NetworkSpec, *, size: str = "B") -> PerTaskModel:
    """Return the network for the only task of `tasks`; an unknown size raises `InputError`.

    There are six stages whatever the experiment pools: stages without a pooling keep the grid.
    """
    task = the_task(tasks)
    if size not in SIZES:
        raise input_error("option size of stunet", found=size, expected="S, B, L or H", fix=suggestion(size, SIZES))
    factor, blocks = SIZES[size]
    first = max(1, spec.base_features * factor // 2)
    given = spec.pool_kernels_zyx[: STAGES - 1]
    pools_zyx = [*given, *[(1, 1, 1)] * (STAGES - 1 - len(given))]
    network = STUNet(
        channels=task.num_channels,
        classes=task.num_classes,
        widths=[first * min(2**stage, WIDEST) for stage in range(STAGES)],
        blocks=[blocks] * STAGES,
        kernels_zyx=[(3, 3, 3)] * STAGES,
        pools_zyx=pools_zyx,
    )
    network.apply(initialise_weights)
    multiple_zyx = [math.prod(pool[axis] for pool in pools_zyx) for axis in range(3)]
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=multiple_zyx)
