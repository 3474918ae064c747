"""DoDNet's concept on the shared backbone: pooled features and a one-hot task code generate the output head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.blocks.dynamic_head import HEAD_WIDTH, dynamic_head, head_sizes
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "DoDNet (dynamic head)",
    "kind": "universal",
    "citation": "Zhang et al., DoDNet: Learning to segment multi-organ and tumors from multiple partially labeled "
    "datasets, CVPR 2021",
    "url": "https://arxiv.org/abs/2011.10217",
    "licence": "Apache-2.0",
    "original_licence": "GPL-3.0",
    "fidelity": "concept",
    "deviations": [
        "the shared backbone instead of the weight-standardised residual network",
        "softmax over the exclusive classes instead of two sigmoid channels",
        "the generated head serves every decoder stage, for deep supervision as the other models have it",
        "pooled features have length 1 before they meet the code, so that a step moves a generated head about as far "
        "as learnt weights, and the code counts as much as features; else the ReLUs of a wide network's heads can die",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
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


class DoDNet(SegmentationModel):
    """The decoder runs once for all tasks; three generated 1x1x1 convolutions make the task's logits."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.to_head = DeepSupervisionHeads(spec, HEAD_WIDTH)
        self.outputs = tasks.max_classes
        self.controller = nn.Conv3d(spec.features[-1] + len(tasks), sum(head_sizes(self.outputs)), 1)
        self.apply(initialise_weights)
        # two inputs of length 1 (features, code): what is generated gets the variance 2/8 of He's rule for ReLU
        nn.init.normal_(self.controller.weight, std=HEAD_WIDTH**-0.5)

    def encode(self, images_BCZYX: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return pooled bottleneck features (B, C, 1, 1, 1) and the head's inputs of width 8, full resolution first."""
        features = self.encoder(images_BCZYX)
        pooled_BC111 = features[-1].mean(dim=(2, 3, 4), keepdim=True)
        return pooled_BC111, self.to_head(self.decoder(features))

    def decode(self, features: tuple[Tensor, list[Tensor]], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of every stage; surplus channels of the widest task are cut."""
        pooled_BC111, stages = features
        code = pooled_BC111.new_zeros(pooled_BC111.shape[0], len(self.tasks), 1, 1, 1)
        code[:, self.tasks.index(task)] = 1
        parameters_BP = self.controller(torch.cat([functional.normalize(pooled_BC111), code], dim=1)).flatten(1)
        return [dynamic_head(x_BCZYX, parameters_BP, self.outputs)[:, : task.num_classes] for x_BCZYX in stages]


def build(tasks: TaskSet, spec: NetworkSpec) -> DoDNet:
    """Return the network for a set of tasks."""
    return DoDNet(tasks, spec)
