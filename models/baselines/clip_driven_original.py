"""The CLIP-driven universal model as released, on its plain U-Net: one generated 8-8-1 head per class.

Axis legend: B batch, C channel, K class, E length of a text vector, P parameter, Z Y X space. Written from the facts of
the released network (Liu et al., ICCV 2023; U-Net of Models Genesis). Modules have the names of the released state
dict, so that it loads as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.blocks.classes import class_channels
from models.blocks.dynamic_head import HEAD_WIDTH, dynamic_heads, head_sizes
from models.blocks.embeddings import class_names, embeddings_of
from models.blocks.own_network import padded_size_zyx
from models.blocks.placement import on_device
from models.blocks.plain_unet import NORM_STATISTICS, PlainUNet
from models.interface import NetworkSpec, SegmentationModel
from models.weights.official import inputs as inputs_of
from models.weights.official import majority, shapes_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.errors import input_error
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "CLIP-driven (original network)",
    "kind": "universal",
    "citation": "Liu et al., CLIP-Driven Universal Model for Organ Segmentation and Tumor Detection, ICCV 2023",
    "url": "https://arxiv.org/abs/2301.00785",
    "licence": "Apache-2.0",
    "original_licence": "CC BY-NC-ND 4.0",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base in steps of 8; with base 32 they are the original's",
        "one class per class name of the tasks at hand instead of the original's 32",
        "without a file or an encoder of the user's the class vectors are random and say nothing of the classes, as "
        "the title tells; the original's are those of CLIP's text encoder",
        "class vectors are scaled to one length, unless they are loaded with the released weights",
        "under the equal recipe SGD replaces the published AdamW of learning rate 1e-4 with warm-up and cosine",
        "input sizes that are no multiple of 8 are padded with zeros and cropped back",
        "the sigmoids of one task answer for its exclusive classes; the original's post-processing is left out",
        "weights start from PyTorch's own values",
    ],
    "channels": [1],
    "patch_multiple": [8, 8, 8],
    "options": {
        "embeddings": {
            "default": "random",
            "help": "where the class vectors come from: file:PATH (the txt_encoding.pth of the original's repository, "
            "or .npz or .pt with one vector per class name), encoder:MODULE:FUNCTION (texts -> vectors), or random "
            "(seeded by the class name)",
            "labels": {"random": "random class vectors"},
            "label": "class vectors from {value}",
            "always_named": True,
        },
        "template": {"default": "A computerized tomography of a {}.", "help": "the text of a class, for an encoder"},
        "share_names": {"default": True, "help": "classes of one name in several tasks are one class"},
    },
    "encoder_keys": ["backbone.down_"],
    "backbone": "own",
    "published_recipe": {
        "source": "ljwztc/CLIP-Driven-Universal-Model, train.py",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0001,
            "weight_decay": 1e-05,
            "learning_rate_schedule": "cosine",
            "warmup": 0.05,
            "gradient_clip": None,
            "batch_size": 2,
        },
        "not_taken": [
            "100 of 2000 epochs of warm-up, stated here as a fraction of the run; the learning rate "
            "changes once per epoch there",
            "the network starts from pre-trained weights there",
            "MONAI's augmentation",
        ],
    },
}
OFFICIAL = "clip_driven_official"
WHERE = "official CLIP-driven weights"
GROUPS = 16


class ClipDrivenOriginal(SegmentationModel):
    """Plain U-Net; pooled features and a class's text vector generate that class's head."""

    activation = "sigmoid"
    organ_embedding: Tensor

    def __init__(
        self,
        tasks: TaskSet,
        spec: NetworkSpec,
        *,
        vectors_KE: Tensor,
        channels_of: Mapping[str, list[int]],
        base: int = 32,
        width: int = 256,
        channels: int = 1,
    ):
        super().__init__(tasks, spec)
        self.channels_of = channels_of
        self.register_buffer("organ_embedding", vectors_KE)
        self.backbone = PlainUNet(channels, base)
        self.precls_conv = nn.Sequential(nn.GroupNorm(GROUPS, 2 * base), nn.ReLU(), nn.Conv3d(2 * base, HEAD_WIDTH, 1))
        self.GAP = nn.Sequential(
            nn.GroupNorm(GROUPS, 16 * base), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Conv3d(16 * base, width, 1)
        )
        self.text_to_vision = nn.Linear(vectors_KE.shape[1], width)
        self.controller = nn.Conv3d(2 * width, sum(head_sizes(1)), 1)

    def encode(self, images_BCZYX: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled features (B, C) and the heads' input (B, 8, Z, Y, X), whole decoder included."""
        size_zyx = tuple(images_BCZYX.shape[2:])
        padded_zyx = padded_size_zyx(size_zyx, (8, 8, 8), samples=len(images_BCZYX))
        ends = [
            part for size, padded in zip(size_zyx[::-1], padded_zyx[::-1], strict=True) for part in (0, padded - size)
        ]
        bottleneck_BCZYX, x_BCZYX = self.backbone(functional.pad(images_BCZYX, ends))
        z, y, x = size_zyx
        return self.GAP(bottleneck_BCZYX).flatten(1), self.precls_conv(x_BCZYX)[:, :, :z, :y, :x]

    def decode(self, features: tuple[Tensor, Tensor], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX`: zeros for background, then the classes of the task only."""
        self.tasks.index(task)
        own_K = on_device(self.channels_of[task.name], features[0].device)
        logits_BKZYX = self._heads(features, self.organ_embedding[own_K])
        return [torch.cat([torch.zeros_like(logits_BKZYX[:, :1]), logits_BKZYX], dim=1)]

    def forward_all(self, images_BCZYX: Tensor) -> Tensor:
        """Return the logit of every class (B, K, Z, Y, X), to be read through a sigmoid each."""
        return self._heads(self.encode(images_BCZYX), self.organ_embedding)

    def official_outputs(self, images_BCZYX: Tensor) -> Tensor:
        """Return what the released network returns."""
        return self.forward_all(images_BCZYX)

    def _heads(self, features: tuple[Tensor, Tensor], vectors_KE: Tensor) -> Tensor:
        image_BC, x_BCZYX = features
        text_KC = self.text_to_vision(vectors_KE).relu()
        batch, classes = len(image_BC), len(text_KC)
        pairs_BKC = torch.cat([image_BC[:, None].expand(-1, classes, -1), text_KC.expand(batch, -1, -1)], dim=2)
        parameters_NP = self.controller(pairs_BKC.flatten(0, 1)[:, :, None, None, None]).flatten(1)
        return dynamic_heads(x_BCZYX, parameters_NP.unflatten(0, (batch, classes)), 1)[:, :, 0]


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> ClipDrivenOriginal:
    """Return the network with these weights, in evaluation mode; `forward_all` answers for its classes.

    `state_dict` may be wrapped in a checkpoint; shapes tell all that `arch` could. Running statistics of the batch
    norms, which the network never reads, may be in it or not. A missing, unexpected or reshaped tensor raises
    InputError and nothing is loaded.
    """
    state = {
        name: tensor for name, tensor in tensors_of(state_dict, WHERE).items() if not name.endswith(NORM_STATISTICS)
    }
    shapes = shapes_of(state)

    def inferred(names: list[str], tell=outputs_of) -> int:
        return majority(shapes, names, tell, where=WHERE)

    first = "backbone.down_tr64.ops.0."
    base = inferred([first + end for end in ("bn1.weight", "bn1.bias", "conv1.bias", "conv1.weight")])
    if base % (GROUPS // 2) or not base:
        raise input_error(
            WHERE, found=f"first width {base}", expected="a multiple of 8", fix="use the released checkpoint"
        )
    classes, length = inferred(["organ_embedding"]), inferred(["text_to_vision.weight", "organ_embedding"], inputs_of)
    model = ClipDrivenOriginal(
        TaskSet([]),
        NetworkSpec(),
        vectors_KE=torch.zeros(classes, length),
        channels_of={},
        base=base,
        width=inferred(["text_to_vision.bias", "text_to_vision.weight", "GAP.3.bias", "GAP.3.weight"]),
        channels=inferred([first + "conv1.weight"], inputs_of),
    )
    load_strictly(model, state, WHERE)
    return model.eval()


def build(
    tasks: TaskSet,
    spec: NetworkSpec,
    *,
    embeddings: str = "random",
    template: str = "A computerized tomography of a {}.",
    share_names: bool = True,
) -> ClipDrivenOriginal:
    """Return the network for a set of tasks; vectors that are missing or damaged raise `InputError`."""
    names = class_names(tasks, share_names=share_names)
    return ClipDrivenOriginal(
        tasks,
        spec,
        vectors_KE=embeddings_of(names, embeddings, template=template),
        channels_of=class_channels(tasks, share_names=share_names)[0],
        base=max(8, spec.base_features // 8 * 8),
        width=8 * max(8, spec.base_features // 8 * 8),
    )
