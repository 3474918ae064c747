"""DoDNet's idea on the shared backbone: pooled features and a one-hot task code generate the output head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbone import SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "DoDNet (dynamic head)",
    "kind": "universal",
    "citation": "Zhang et al., DoDNet, CVPR 2021, arXiv:2011.10217",
    "url": "https://arxiv.org/abs/2011.10217",
    "licence": "Apache-2.0",
    "original_licence": "GPL-3.0",
    "version": "1",
    "fidelity": "idea",
    "deviations": ["the shared backbone instead of the weight-standardised residual network", "softmax over the exclusive classes instead of two sigmoid channels", "generated heads at the full resolution only; no deep supervision"],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
    "loss": "dice_ce",
}

HEAD_WIDTH = 8


class DoDNet(SegmentationModel):
    """The decoder runs once for all tasks; three generated 1x1x1 convolutions make the task's logits."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.to_head = nn.Conv3d(spec.features[0], HEAD_WIDTH, 1)
        self.sizes = _head_sizes(tasks.max_classes)
        self.controller = nn.Conv3d(spec.features[-1] + len(tasks), sum(self.sizes), 1)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled bottleneck features (B, C, 1, 1, 1) and the head's input (B, 8, Z, Y, X)."""
        features = self.encoder(images_BCZYX)
        pooled_BC111 = features[-1].mean(dim=(2, 3, 4), keepdim=True)
        return pooled_BC111, self.to_head(self.decoder(features)[0])

    def decode(self, features: tuple[Tensor, Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` at full resolution; surplus channels of the widest task are cut."""
        pooled_BC111, x_BCZYX = features
        code = pooled_BC111.new_zeros(pooled_BC111.shape[0], len(self.tasks), 1, 1, 1)
        code[:, self.tasks.index(task)] = 1
        parameters_BP = self.controller(torch.cat([pooled_BC111, code], dim=1)).flatten(1)
        return [_dynamic_head(x_BCZYX, parameters_BP, self.sizes)[:, : task.num_classes]]


def _head_sizes(classes: int) -> list[int]:
    """Sizes of the three weights, then of the three biases."""
    return [HEAD_WIDTH**2, HEAD_WIDTH**2, HEAD_WIDTH * classes, HEAD_WIDTH, HEAD_WIDTH, classes]


def _dynamic_head(x_BCZYX: Tensor, parameters_BP: Tensor, sizes: list[int]) -> Tensor:
    """Apply each sample's own three 1x1x1 convolutions with ReLU between."""
    batch, width = x_BCZYX.shape[:2]
    space = x_BCZYX.shape[2:]
    parts = parameters_BP.split(sizes, dim=1)
    x_BCN = x_BCZYX.flatten(2)
    for layer, (weights_BP, biases_BP) in enumerate(zip(parts[:3], parts[3:], strict=True)):
        weights_BOC = weights_BP.view(batch, -1, width)
        x_BCN = torch.baddbmm(biases_BP.unsqueeze(2), weights_BOC, x_BCN)
        if layer < 2:
            x_BCN = x_BCN.relu()
    return x_BCN.unflatten(2, space)


def build(tasks: TaskSet, spec: NetworkSpec) -> DoDNet:
    """Return the network for a set of tasks."""
    return DoDNet(tasks, spec)
