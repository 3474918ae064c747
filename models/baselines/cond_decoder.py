"""Conditioning in the decoder: the task's one-hot code as constant maps beside the features of every stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbone import ConvBlock, DeepSupervisionHeads, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Cond-Dec",
    "kind": "universal",
    "citation": "Dmitriev and Kaufman, Learning multi-class segmentations from single-class datasets, CVPR 2019; as "
    "the baseline Cond-Dec of DoDNet, CVPR 2021",
    "url": "https://github.com/jianpengz/DoDNet",
    "licence": "Apache-2.0",
    "original_licence": "GPL-3.0",
    "fidelity": "concept",
    "deviations": [
        "on the shared backbone, with exclusive softmax classes instead of organ and tumour sigmoids",
        "the code is one-hot and concatenated before the first convolution of every decoder stage",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {},
    "encoder_keys": ["encoder."],
    "backbone": "shared",
}


class CodedDecoder(nn.Module):
    """The shared backbone's up-sampling path with the task code beside the input of every stage."""

    def __init__(self, spec: NetworkSpec, code_length: int):
        super().__init__()
        kernels = spec.conv_kernels_zyx[1:]  # as in nnU-Net v1, a decoder stage has the kernel of the stage below
        levels = list(zip(spec.features[:-1], spec.features[1:], spec.pool_kernels_zyx, kernels, strict=True))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(below, width, pool, pool, bias=False) for width, below, pool, _ in reversed(levels)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvBlock(2 * width + code_length, width, kernel_zyx=kernel),
                ConvBlock(width, width, kernel_zyx=kernel),
            )
            for width, _, _, kernel in reversed(levels)
        )

    def forward(self, features: list[Tensor], code_T: Tensor) -> list[Tensor]:
        """Return features of every stage, full resolution first."""
        x_BCZYX, outputs = features[-1], []
        for up, block, skip_BCZYX in zip(self.up, self.blocks, reversed(features[:-1]), strict=True):
            codes_BTZYX = code_T[None, :, None, None, None].expand(skip_BCZYX.shape[0], -1, *skip_BCZYX.shape[2:])
            x_BCZYX = block(torch.cat([up(x_BCZYX), skip_BCZYX, codes_BTZYX], dim=1))
            outputs.append(x_BCZYX)
        return outputs[::-1]


class CondDecoder(SegmentationModel):
    """Shared encoder, decoder with the task code, one head whose first channels a task reads."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = CodedDecoder(spec, len(tasks))
        self.heads = DeepSupervisionHeads(spec, tasks.max_classes)
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        return self.encoder(images_BCZYX)

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        code_T = features[0].new_zeros(len(self.tasks))
        code_T[self.tasks.index(task)] = 1
        return [logits_BKZYX[:, : task.num_classes] for logits_BKZYX in self.heads(self.decoder(features, code_T))]


def build(tasks: TaskSet, spec: NetworkSpec) -> CondDecoder:
    """Return the network for all tasks of `tasks`."""
    return CondDecoder(tasks, spec)
