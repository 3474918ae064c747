"""VISTA3D's automatic branch, trained from scratch: a learned prompt per class turns shared features into its mask.

Axis legend: B batch, C channel, K class, E length of a class prompt, Z Y X space.

The image encoder and the class head are MONAI's own. A task asks with the prompts of its classes, so one encoding of an
image serves every task; classes of one name in several tasks are one prompt, as VISTA3D merges its data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.networks.nets import SegResNetDS
from monai.networks.nets.vista3d import ClassMappingClassify
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.classes import class_channels
from models.blocks.own_network import padded_size_zyx
from models.blocks.placement import on_device
from models.interface import NetworkSpec, SegmentationModel, stem_key
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "VISTA3D (from scratch)",
    "kind": "universal",
    "citation": "He et al., VISTA3D: A Unified Segmentation Foundation Model For 3D Medical Imaging, CVPR 2025",
    "url": "https://github.com/Project-MONAI/VISTA",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0 (code); the released weights have a licence of their own",
    "fidelity": "description",
    "deviations": [
        "the automatic branch alone: no clicks, no zero-shot branch, no training on pseudo-labels and supervoxels",
        "trained from scratch on the tasks at hand; width 48 at the base width 32 is the original's",
        "one first convolution per channel count; the original sees one CT channel",
        "the sigmoids of one task answer for its exclusive classes; classes of other tasks get no loss",
        "input sizes that are no multiple of 16 are padded by their border and cropped back",
        "under the equal recipe SGD replaces the published AdamW of learning rate 2e-5",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {
        "share_names": {"default": True, "help": "classes of one name in several tasks have one prompt"},
    },
    "encoder_keys": ["image_encoder.encoder."],
    "backbone": "own",
    "published_recipe": {
        "source": "Project-MONAI/VISTA, vista3d/configs/train/hyper_parameters_stage3.yaml (the stage that trains the "
        "automatic branch) and vista3d/scripts/train.py",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 2e-05,
            "weight_decay": 1e-05,
            "learning_rate_schedule": "cosine",
            "gradient_clip": None,
        },
        "not_taken": [
            "the learning rate is made for weights of the stage before; README_research.md has 5e-5 for fine-tuning",
            "the learning rate changes once per epoch there, per step here",
            "one patch per GPU; the commands are for one GPU and for eight",
            "its authors say that these files may not reproduce their weights: each stage had several rounds",
        ],
    },
}
BLOCKS_DOWN = (1, 2, 2, 4, 4)
MULTIPLE_ZYX = (2 ** (len(BLOCKS_DOWN) - 1),) * 3


class ChannelStem(nn.Module):
    """The first convolution, once per supported channel count."""

    def __init__(self, channel_counts: Sequence[int], width: int):
        super().__init__()
        self.conv = nn.ModuleDict(
            {stem_key(count): nn.Conv3d(count, width, 3, padding=1, bias=False) for count in channel_counts}
        )

    def forward(self, images_BCZYX: Tensor) -> Tensor:
        """Return features; the convolution is chosen by the input's channel count."""
        return self.conv[stem_key(images_BCZYX.shape[1])](images_BCZYX)


class VISTA3D(SegmentationModel):
    """SegResNet encoder and decoder; a class's mask is the inner product of its mapped prompt with the features."""

    activation = "sigmoid"

    def __init__(
        self, tasks: TaskSet, spec: NetworkSpec, *, channels_of: Mapping[str, list[int]], classes: int, width: int
    ):
        super().__init__(tasks, spec)
        self.channels_of = channels_of
        self.image_encoder = SegResNetDS(
            init_filters=width, out_channels=width, blocks_down=BLOCKS_DOWN, norm="instance", dsdepth=1
        )
        self.image_encoder.encoder.conv_init = ChannelStem(tasks.channel_counts, width)
        self.class_head = ClassMappingClassify(n_classes=classes, feature_size=width, use_mlp=True)

    def encode(self, images_BCZYX: Tensor) -> Tensor:
        """Return the features that every class reads, at the size of the images."""
        size_zyx = tuple(images_BCZYX.shape[2:])
        padded_zyx = padded_size_zyx(size_zyx, MULTIPLE_ZYX)
        ends_zyx = [padded - size for size, padded in zip(size_zyx, padded_zyx, strict=True)]
        padding = [value for end in reversed(ends_zyx) for value in (0, end)]  # torch counts from the last axis
        features_BCZYX = self.image_encoder(functional.pad(images_BCZYX, padding, mode="replicate"))
        z, y, x = size_zyx
        return self.class_head.image_post_mapping(features_BCZYX)[:, :, :z, :y, :x]

    def decode(self, features: Tensor, task: Task) -> list[Tensor]:
        """Return `logits_BKZYX`: zeros for background, then one mask per class of the task."""
        self.tasks.index(task)
        numbers_K1 = on_device(self.channels_of[task.name], features.device)[:, None]
        prompts_KE = self.class_head.mlp(self.class_head.class_embeddings(numbers_K1))[:, 0]
        logits_BKZYX = torch.einsum("ke,bezyx->bkzyx", prompts_KE, features)
        return [torch.cat([torch.zeros_like(logits_BKZYX[:, :1]), logits_BKZYX], dim=1)]


def build(tasks: TaskSet, spec: NetworkSpec, *, share_names: bool = True) -> VISTA3D:
    """Return the network for a set of tasks; first width 48 at the base width 32."""
    channels_of, classes = class_channels(tasks, share_names=share_names)
    return VISTA3D(tasks, spec, channels_of=channels_of, classes=classes, width=spec.base_features * 3 // 2)
