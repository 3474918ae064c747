"""The Hermes concept on the shared backbone: learned priors meet the features at up to five levels, then classify."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.backbone import SharedDecoder, SharedEncoder, initialise_weights
from models.blocks.attention import AttentionBlock, to_tokens, to_volume
from models.blocks.placement import on_device
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
        "on the shared backbone; `hermes_original` is the released network",
        "priors meet the features of the three deepest encoder stages and of the first two decoder stages, as in the "
        "original, but never at full resolution",
        "one prior token per modality instead of ten",
        "exclusive softmax classes with a token each, background included, instead of binary tasks",
        "no auxiliary classification of the modality",
        "no exponential moving average of the weights; under the equal recipe SGD replaces the published LAMB of "
        "learning rate 2e-3",
    ],
    "channels": "any",
    "patch_multiple": "spec",
    "options": {
        "layers": {"at_least": 1, "default": 2, "help": "rounds of attention between tokens and features, per level"}
    },
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
    "published_recipe": {
        "source": "yhygao/universal-medical-image-segmentation, config/universal/hermes_medformer_3d.yaml and "
        "hermes_resunet_3d.yaml, train.py and training/utils.py",
        "keys": {},
        "not_taken": [
            "LAMB with a learning rate of 2e-3, which PyTorch does not offer; betas 0.9 and 0.999, epsilon 1e-5",
            "weight decay 0.05 for MedFormer and 1e-5 for the residual U-Net",
            "poly with exponent 0.9, for the residual U-Net after 5 of 200 epochs of warm-up; no clip; batch size 16",
            "an exponential moving average of the weights with decay 0.99",
        ],
    },
}
ENCODER_LEVELS, DECODER_LEVELS = 3, 2


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


class PriorLevel(nn.Module):
    """The priors of one level, a token per class of every task and one per modality, and what they do there."""

    def __init__(self, tasks: TaskSet, modalities: int, width: int, *, layers: int):
        super().__init__()
        self.class_tokens = nn.ParameterList(torch.randn(task.num_classes, width) for task in tasks)
        self.modality_tokens = nn.Parameter(torch.randn(modalities, width))
        self.exchanges = nn.ModuleList(Exchange(width) for _ in range(layers))

    def forward(self, x_BCZYX: Tensor, task_index: int, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the same shape and the class tokens, `BKC`; `present` has the numbers of modalities."""
        classes_KC = self.class_tokens[task_index]
        tokens_NC = torch.cat([classes_KC, self.modality_tokens.index_select(0, present)])
        tokens_BNC, features_BMC = tokens_NC.expand(x_BCZYX.shape[0], -1, -1), to_tokens(x_BCZYX)
        for exchange in self.exchanges:
            tokens_BNC, features_BMC = exchange(tokens_BNC, features_BMC)
        return to_volume(features_BMC, x_BCZYX.shape[2:]), tokens_BNC[:, : len(classes_KC)]


class Hermes(SegmentationModel):
    """Shared encoder and decoder; the tokens of all levels together make the kernels that classify each voxel."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, layers: int):
        super().__init__(tasks, spec)
        widths = spec.features
        self.modalities = sorted({channel.modality for task in tasks for channel in task.channels})
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.encoder.is_compiled_region = self.decoder.is_compiled_region = False  # their stages are called one by one
        self.encoder.apply(initialise_weights)
        self.decoder.apply(initialise_weights)
        self.first = max(1, len(widths) - ENCODER_LEVELS)  # the finest encoder stage that meets priors
        met_down = widths[self.first :]
        met_up = widths[-2:0:-1][:DECODER_LEVELS]
        count = len(self.modalities)
        self.down_priors = nn.ModuleList(PriorLevel(tasks, count, width, layers=layers) for width in met_down)
        self.up_priors = nn.ModuleList(PriorLevel(tasks, count, width, layers=layers) for width in met_up)
        total = sum(met_down) + sum(met_up)
        self.norm = nn.LayerNorm(total)
        self.kernels = nn.ModuleList(nn.Linear(total, width) for width in widths[:-1])

    def encode(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return the features before the first stage that meets priors, and that stage's, finest first."""
        x_BCZYX = self.encoder.first(self.encoder.stem(images_BCZYX))
        features = [x_BCZYX]
        for stage in self.encoder.stages[: self.first]:
            features.append(stage(features[-1]))
        return features

    def decode(self, features: list[Tensor], task: Task) -> list[Tensor]:
        index = self.tasks.index(task)
        *skips, x_BCZYX = features
        modalities = dict.fromkeys(channel.modality for channel in task.channels)
        present = on_device([self.modalities.index(name) for name in modalities], x_BCZYX.device)
        posteriors = []
        for number, priors in enumerate(self.down_priors):
            if number > 0:
                x_BCZYX = self.encoder.stages[self.first + number - 1](x_BCZYX)
            x_BCZYX, classes_BKC = priors(x_BCZYX, index, present)
            skips.append(x_BCZYX)
            posteriors.append(classes_BKC)
        skips.pop()
        decoded = []
        for number, (up, block) in enumerate(zip(self.decoder.up, self.decoder.blocks, strict=True)):
            x_BCZYX = block(torch.cat([up(x_BCZYX), skips.pop()], dim=1))
            if number < len(self.up_priors):
                x_BCZYX, classes_BKC = self.up_priors[number](x_BCZYX, index, present)
                posteriors.append(classes_BKC)
            decoded.append(x_BCZYX)
        classes_BKC = self.norm(torch.cat(posteriors, dim=-1))
        return [
            _classified(kernel(classes_BKC), part) for kernel, part in zip(self.kernels, decoded[::-1], strict=True)
        ]


def _classified(kernels_BKC: Tensor, features_BCZYX: Tensor) -> Tensor:
    """Return `logits_BKZYX`: the scaled product of each class's kernel with each voxel's features."""
    return torch.einsum("bkc,bczyx->bkzyx", kernels_BKC, features_BCZYX) / math.sqrt(kernels_BKC.shape[-1])


def build(tasks: TaskSet, spec: NetworkSpec, *, layers: int = 2) -> Hermes:
    """Return the network for all tasks of `tasks`."""
    return Hermes(tasks, spec, layers=layers)
