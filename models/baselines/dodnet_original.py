"""DoDNet as released: a weight-standardised residual network whose 8-8-2 head is generated per task.

Axis legend: B batch, C channel, K class, T task, Z Y X space. Written from the facts of the released network (Zhang et
al., CVPR 2021). Channel 0 is the organ, channel 1 the tumour, both sigmoid; an organ holds its tumour where the card of
the data set says so. Modules have the names of the released state dict, so that it loads as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.dynamic_head import HEAD_WIDTH, dynamic_head, head_outputs, head_sizes
from models.blocks.placement import on_device
from models.interface import NetworkSpec, SegmentationModel
from models.weights.official import check_arguments, majority, shapes_of, task_numbers
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "DoDNet (original network)",
    "kind": "universal",
    "citation": "Zhang et al., DoDNet: Learning to segment multi-organ and tumors from multiple partially labeled "
    "datasets, CVPR 2021",
    "url": "https://arxiv.org/abs/2011.10217",
    "licence": "Apache-2.0",
    "original_licence": "GPL-3.0",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base in steps of 16; with base 32 they are the original's",
        "input sizes that are no multiple of 16 are padded with zeros and cropped back",
        "a task of more than two classes has a channel per class, and then all generated heads have that many; the "
        "original has two",
        "which class is a tumour, and whether its organ holds it, is read in the card of the data set; as in the "
        "original, liver, kidney and pancreas do and hepatic vessels do not",
        "inputs have the experiment's intensities and axes z, y, x; the original scales CT to -1..1 and has z, x, y",
        "weights start from Kaiming normal values",
    ],
    "channels": [1],
    "patch_multiple": [16, 16, 16],
    "options": {},
    "encoder_keys": ["conv1.", "layer"],
    "backbone": "own",
    "published_recipe": {
        "source": "jianpengz/DoDNet, a_DynConv/train.py and the command of README.md",
        "keys": {
            "optimiser": "sgd",
            "initial_learning_rate": 0.01,
            "momentum": 0.99,
            "weight_decay": 0.0,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "gradient_clip": None,
            "batch_size": 2,
        },
        "not_taken": [
            "the learning rate changes once per epoch there, per step here",
            "batch 2 there holds patches of several tasks",
            "inputs scaled to -1..1",
        ],
    },
}
OFFICIAL = "dodnet_official"
WHERE = "official DoDNet state dict"
GROUPS = 16
STRIDE = 16


class StandardisedConv(nn.Conv3d):
    """Bias-free convolution whose weight has zero mean and unit (unbiased) variance per output channel.

    Without `standardised`, as the original can be built too, the weight is used as it is.
    """

    standardised = True

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the convolution with the standardised weight."""
        if not self.standardised:
            return super().forward(x_BCZYX)
        mean = self.weight
        for axis in (1, 2, 3, 4):  # axis by axis: a single mean rounds otherwise, and forty layers amplify it to 2e-5
            mean = mean.mean(dim=axis, keepdim=True)
        weight = self.weight - mean
        scale = (weight.flatten(1).var(dim=1) + 1e-12).sqrt().view(-1, 1, 1, 1, 1)
        return functional.conv3d(x_BCZYX, weight / scale, None, self.stride, self.padding)


class ResidualBlock(nn.Module):
    """Pre-activation block: group norm, ReLU, 3x3x3, twice; a strided 1x1x1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.gn1 = nn.GroupNorm(GROUPS, inputs)
        self.conv1 = StandardisedConv(inputs, outputs, 3, stride, 1, bias=False)
        self.gn2 = nn.GroupNorm(GROUPS, outputs)
        self.conv2 = StandardisedConv(outputs, outputs, 3, 1, 1, bias=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.GroupNorm(GROUPS, inputs), nn.ReLU(), StandardisedConv(inputs, outputs, 1, stride, bias=False)
            )

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return features plus shortcut."""
        shortcut = x_BCZYX if self.downsample is None else self.downsample(x_BCZYX)
        out = self.conv1(self.gn1(x_BCZYX).relu())
        return self.conv2(self.gn2(out).relu()) + shortcut


def _stage(inputs: int, outputs: int, *, blocks: int, stride: int = 1) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class DoDNetOriginal(SegmentationModel):
    """Encoder of five residual stages, additive skips, generated head."""

    activation = "sigmoid"

    def __init__(
        self,
        tasks: TaskSet,
        spec: NetworkSpec,
        *,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        blocks: Sequence[int] = (1, 2, 2, 2, 2),
        channels: int = 1,
        task_count: int | None = None,
        outputs: int = 2,
    ):
        super().__init__(tasks, spec)
        self.task_count = task_count or len(tasks)
        self.outputs = outputs
        w0, w1, w2, w3, w4 = widths
        self.conv1 = StandardisedConv(channels, w0, 3, 1, 1, bias=False)
        self.layer0 = _stage(w0, w0, blocks=blocks[0])
        self.layer1 = _stage(w0, w1, blocks=blocks[1], stride=2)
        self.layer2 = _stage(w1, w2, blocks=blocks[2], stride=2)
        self.layer3 = _stage(w2, w3, blocks=blocks[3], stride=2)
        self.layer4 = _stage(w3, w4, blocks=blocks[4], stride=2)
        self.fusionConv = nn.Sequential(nn.GroupNorm(GROUPS, w4), nn.ReLU(), StandardisedConv(w4, w3, 1, bias=False))
        self.x8_resb = _stage(w3, w2, blocks=1)
        self.x4_resb = _stage(w2, w1, blocks=1)
        self.x2_resb = _stage(w1, w0, blocks=1)
        self.x1_resb = _stage(w0, w0, blocks=1)
        self.precls_conv = nn.Sequential(nn.GroupNorm(GROUPS, w0), nn.ReLU(), nn.Conv3d(w0, HEAD_WIDTH, 1))
        self.GAP = nn.Sequential(nn.GroupNorm(GROUPS, w3), nn.ReLU(), nn.AdaptiveAvgPool3d(1))
        self.controller = nn.Conv3d(w3 + self.task_count, sum(head_sizes(outputs)), 1)
        self.apply(_initialise)

    def encode(self, images_BCZYX: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled features (B, C, 1, 1, 1) and the head's input (B, 8, Z, Y, X), whole decoder included."""
        size = images_BCZYX.shape[2:]
        padding = [part for length in reversed(size) for part in (0, -length % STRIDE)]
        x0 = self.layer0(self.conv1(functional.pad(images_BCZYX, padding)))
        x1 = self.layer1(x0)
        x2 = self.layer2(x1)
        x3 = self.layer3(x2)
        x_BCZYX = self.fusionConv(self.layer4(x3))
        pooled_BC111 = self.GAP(x_BCZYX)
        for skip, block in ((x3, self.x8_resb), (x2, self.x4_resb), (x1, self.x2_resb), (x0, self.x1_resb)):
            x_BCZYX = functional.interpolate(x_BCZYX, scale_factor=2, mode="trilinear", align_corners=False)
            x_BCZYX = block(x_BCZYX + skip)
        return pooled_BC111, self.precls_conv(x_BCZYX)[:, :, : size[0], : size[1], : size[2]]

    def decode(self, features: tuple[Tensor, Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX`: zeros for background, then the channels of the task's classes."""
        pooled_BC111 = features[0]
        indices = torch.full((pooled_BC111.shape[0],), self.tasks.index(task), device=pooled_BC111.device)
        logits_BKZYX = self._head(features, indices)[:, on_device(_channels(task), indices.device)]
        return [torch.cat([torch.zeros_like(logits_BKZYX[:, :1]), logits_BKZYX], dim=1)]

    def targets(self, labels_BZYX: Tensor, task: Task) -> Tensor:
        """Return `targets_BKZYX` in which an organ includes the tumours that the card counts as its own."""
        targets_BKZYX = super().targets(labels_BZYX, task)
        for tumour, organ in task.tumours:
            if organ is not None:
                targets_BKZYX[:, organ] += targets_BKZYX[:, tumour]
        return targets_BKZYX

    def probabilities(self, logits_BKZYX: Tensor, task: Task | None = None) -> Tensor:
        """Return probabilities whose argmax is a tumour where it exceeds one half, else the organ where that does.

        Without a task nothing is known of tumours, and the largest probability above one half wins.
        """
        probabilities_BKZYX = super().probabilities(logits_BKZYX)
        for tumour, organ in task.tumours if task is not None else ():
            if organ is not None:  # the organ's channel holds the tumour too, so it gives way to it
                rest_BZYX = 1 - probabilities_BKZYX[:, tumour]
                probabilities_BKZYX[:, organ] = torch.minimum(probabilities_BKZYX[:, organ], rest_BZYX)
        return probabilities_BKZYX

    def forward_index(self, images_BCZYX: Tensor, task_indices: int | Sequence[int] | Tensor) -> Tensor:
        """Return the organ and tumour logits (B, 2, Z, Y, X), each sample with its own task number, or one for all.

        Raises InputError for a task number that the network lacks.
        """
        indices = task_numbers(task_indices, batch=len(images_BCZYX), tasks=self.task_count).to(images_BCZYX.device)
        return self._head(self.encode(images_BCZYX), indices)

    def official_outputs(self, images_BCZYX: Tensor, task_id: int | Sequence[int]) -> Tensor:
        """Return what the released network returns for task numbers."""
        return self.forward_index(images_BCZYX, task_id)

    def _head(self, features: tuple[Tensor, Tensor], indices: Tensor) -> Tensor:
        pooled_BC111, x_BCZYX = features
        code_BT = functional.one_hot(indices, self.task_count).to(pooled_BC111.dtype)
        parameters_BP = self.controller(torch.cat([pooled_BC111, code_BT[:, :, None, None, None]], dim=1)).flatten(1)
        return dynamic_head(x_BCZYX, parameters_BP, self.outputs)


def _channels(task: Task) -> list[int]:
    """Return the network's channel of each class of a task: 0 is the organ's, 1 the tumour's, up to two classes."""
    tumours = [tumour for tumour, _ in task.tumours]
    if len(task.classes) > 2 or len(tumours) != 1:
        return list(range(len(task.classes)))
    return [1 if value in tumours else 0 for value in range(1, len(task.classes) + 1)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> DoDNetOriginal:
    """Return the network with these weights, in evaluation mode; sizes and task count come from the shapes.

    `state_dict` may be wrapped in a checkpoint. Shapes tell all of `arch` but whether the weights of convolutions are
    standardised (`weight_standardisation`, which the original calls `weight_std`), as released when absent. A missing,
    unexpected or reshaped tensor raises InputError and nothing is loaded.
    """
    check_arguments(arch, WHERE, weight_standardisation=(True, False), weight_std=(True, False))
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)

    def inferred(names: list[str], tell) -> int:
        return majority(shapes, names, tell, where=WHERE)

    ends = ("gn2.weight", "gn2.bias", "conv1.weight", "conv2.weight")
    widths = [inferred([f"layer{stage}.0.{end}" for end in ends], outputs_of) for stage in range(5)]
    _check_widths(widths)
    stages = [re.match(r"layer([0-4])\.(\d{1,2})\.", name) for name in shapes]
    blocks = [1 + max(int(found[2]) for found in stages if found and int(found[1]) == stage) for stage in range(5)]
    model = DoDNetOriginal(
        TaskSet([]),
        NetworkSpec(),
        widths=widths,
        blocks=blocks,
        channels=inferred(["conv1.weight"], inputs_of),
        task_count=max(1, inferred(["controller.weight"], inputs_of) - widths[3]),
        outputs=head_outputs(inferred(["controller.bias", "controller.weight"], outputs_of)),
    )
    for module in model.modules():
        if isinstance(module, StandardisedConv):
            module.standardised = bool(arch.get("weight_standardisation", arch.get("weight_std", True)))
    load_strictly(model, state, WHERE)
    return model.eval()


def _check_widths(widths: Sequence[int]) -> None:
    if any(width % GROUPS or not width for width in widths):
        expected = f"multiples of {GROUPS}, the number of groups"
        raise input_error(WHERE, found=f"widths {list(widths)}", expected=expected, fix="give a DoDNet checkpoint")


def build(tasks: TaskSet, spec: NetworkSpec) -> DoDNetOriginal:
    """Return the network for a set of tasks, its first width the largest multiple of 16 in the spec's, at least 16."""
    base = max(GROUPS, spec.base_features // GROUPS * GROUPS)
    outputs = max(2, tasks.max_classes - 1)
    return DoDNetOriginal(tasks, spec, widths=[base, 2 * base, 4 * base, 8 * base, 8 * base], outputs=outputs)
