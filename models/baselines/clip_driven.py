"""The text-driven concept on the shared backbone: pooled features and a text vector generate a class's head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbone import DeepSupervisionHeads, SharedDecoder, SharedEncoder, initialise_weights
from models.blocks.classes import class_channels
from models.blocks.dynamic_head import HEAD_WIDTH, dynamic_heads, head_sizes
from models.blocks.embeddings import class_names, embeddings_of
from models.blocks.placement import on_device
from models.interface import NetworkSpec, SegmentationModel
from segbench.core.task import Task, TaskSet

CARD = {
    "title": "Text-driven",
    "kind": "universal",
    "citation": "Liu et al., CLIP-Driven Universal Model for Organ Segmentation and Tumor Detection, ICCV 2023",
    "url": "https://arxiv.org/abs/2301.00785",
    "licence": "Apache-2.0",
    "original_licence": "CC BY-NC-ND 4.0",
    "fidelity": "concept",
    "deviations": [
        "the shared backbone instead of the plain U-Net or Swin UNETR",
        "pooled features and text vectors are projected to the bottleneck's width instead of 256",
        "the generated heads serve every decoder stage, for deep supervision as the other models have it",
        "without a file or an encoder of the user's the class vectors are random and say nothing of the classes, as "
        "the title tells; the original's are those of CLIP's text encoder",
        "class vectors are scaled to one length",
        "the sigmoids of one task answer for its exclusive classes; classes of other tasks get no loss",
    ],
    "channels": "any",
    "patch_multiple": "spec",
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
    "encoder_keys": ["encoder.", "decoder."],
    "backbone": "shared",
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


class TextDriven(SegmentationModel):
    """The decoder runs once for all tasks; one generated 8-8-1 head per class of the task makes its logits."""

    activation = "sigmoid"
    class_vectors: Tensor

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, vectors_KE: Tensor, share_names: bool):
        super().__init__(tasks, spec)
        width = spec.features[-1]
        self.channels, _ = class_channels(tasks, share_names=share_names)
        self.register_buffer("class_vectors", vectors_KE)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.to_head = DeepSupervisionHeads(spec, HEAD_WIDTH)
        self.project_image = nn.Linear(width, width)
        self.project_text = nn.Linear(vectors_KE.shape[1], width)
        self.controller = nn.Linear(2 * width, sum(head_sizes(1)))
        self.apply(initialise_weights)

    def encode(self, images_BCZYX: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return projected image features (B, C) and the heads' inputs of width 8, full resolution first."""
        features = self.encoder(images_BCZYX)
        return self.project_image(features[-1].mean(dim=(2, 3, 4))), self.to_head(self.decoder(features))

    def decode(self, features: tuple[Tensor, list[Tensor]], task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of every stage: zeros for background, then the classes of the task only."""
        image_BC, stages = features
        self.tasks.index(task)
        text_KC = self.project_text(self.class_vectors[on_device(self.channels[task.name], image_BC.device)]).relu()
        pairs_BKC = torch.cat(
            [image_BC[:, None].expand(-1, len(text_KC), -1), text_KC.expand(len(image_BC), -1, -1)], dim=2
        )
        parameters_BKP = self.controller(pairs_BKC)
        logits = [dynamic_heads(x_BCZYX, parameters_BKP, 1)[:, :, 0] for x_BCZYX in stages]
        return [torch.cat([torch.zeros_like(each[:, :1]), each], dim=1) for each in logits]


def build(
    tasks: TaskSet,
    spec: NetworkSpec,
    *,
    embeddings: str = "random",
    template: str = "A computerized tomography of a {}.",
    share_names: bool = True,
) -> TextDriven:
    """Return the network for a set of tasks; vectors that are missing or damaged raise `InputError`."""
    names = class_names(tasks, share_names=share_names)
    vectors_KE = embeddings_of(names, embeddings, template=template)
    return TextDriven(tasks, spec, vectors_KE=vectors_KE, share_names=share_names)
