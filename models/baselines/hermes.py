"""Hermes: learned task and modality tokens talk with the image's features and become the classifiers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.backbone import SharedDecoder, SharedEncoder, initialise_weights
from models.blocks.attention import AttentionBlock, to_tokens, to_volume
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Hermes",
    "kind": "universal",
    "citation": "Gao et al., Training Like a Medical Resident: Context-Prior Learning Toward Universal Medical Image "
    "Segmentation, CVPR 2024",
    "url": "https://github.com/yhygao/universal-medical-image-segmentation",
    "licence": "Apache-2.0",
    "original_licence": "none",
    "fidelity": "concept",
    "deviations": [
        "on the shared backbone; tokens meet the features at the bottleneck only, not at several scales",
        "exclusive softmax classes with a token each, background included, instead of binary tasks",
        "no auxiliary classification of the modality",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {"layers": {"default": 2, "help": "rounds of attention between tokens and features"}},
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
}


class Exchange(nn.Module):
    """One round: tokens ask the features, then the features ask the tokens."""

    def __init__(self, width: int):
        super().__init__()
        heads = math.gcd(width, 8)
        self.tokens_ask = AttentionBlock(width, heads)
        self.features_ask = AttentionBlock(width, heads)

    def forward(self, tokens_BNC: Tensor, features_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the updated tokens and features."""
        tokens_BNC = self.tokens_ask(tokens_BNC, features_BMC)
        return tokens_BNC, self.features_ask(features_BMC, tokens_BNC)


class Hermes(SegmentationModel):
    """Shared encoder and decoder; a token per class of every task and one per modality as learned priors."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, layers: int):
        super().__init__(tasks, spec)
        width = spec.features[-1]
        self.modalities = sorted({channel.modality for task in tasks for channel in task.channels})
        self.class_tokens = nn.ParameterList(torch.randn(task.num_classes, width) for task in tasks)
        self.modality_tokens = nn.Parameter(torch.randn(len(self.modalities), width))
        self.exchanges = nn.ModuleList(Exchange(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.kernels = nn.ModuleList(nn.Linear(width, size) for size in spec.features[:-1])
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.encoder.apply(initialise_weights)
        self.decoder.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        return self.encoder(images_BCZYX)

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        deepest_BCZYX = features[-1]
        tokens_BNC = self._priors(task).expand(deepest_BCZYX.shape[0], -1, -1)
        features_BMC = to_tokens(deepest_BCZYX)
        for exchange in self.exchanges:
            tokens_BNC, features_BMC = exchange(tokens_BNC, features_BMC)
        decoded = self.decoder([*features[:-1], to_volume(features_BMC, deepest_BCZYX.shape[2:])])
        classes_BKC = self.norm(tokens_BNC[:, : task.num_classes])
        return [_classified(kernel(classes_BKC), part) for kernel, part in zip(self.kernels, decoded, strict=True)]

    def _priors(self, task: Task) -> Tensor:
        present = [self.modalities.index(name) for name in dict.fromkeys(c.modality for c in task.channels)]
        return torch.cat([self.class_tokens[self.tasks.index(task)], self.modality_tokens[present]])


def _classified(kernels_BKC: Tensor, features_BCZYX: Tensor) -> Tensor:
    """Return `logits_BKZYX`: the scaled product of each class's kernel with each voxel's features."""
    return torch.einsum("bkc,bczyx->bkzyx", kernels_BKC, features_BCZYX) / math.sqrt(kernels_BKC.shape[-1])


def build(tasks: TaskSet, spec: NetworkSpec, *, layers: int = 2) -> Hermes:
    """Return the network for all tasks of `tasks`."""
    return Hermes(tasks, spec, layers=layers)
