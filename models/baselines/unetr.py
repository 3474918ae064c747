"""UNETR: a vision transformer as encoder, skips from four depths, a convolutional decoder; blocks from MONAI."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import UNETR
from torch import Tensor, nn

from models.blocks.own_network import PerTaskModel, answers_of, coarser_heads, padded_size_zyx, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

CARD = {
    "title": "UNETR",
    "kind": "single_task",
    "citation": "Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022",
    "url": "https://github.com/Project-MONAI/MONAI",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "description",
    "deviations": [
        "MONAI's network; position embeddings are interpolated when the input is not the training patch",
        "feature size 16 and hidden size 768 at the base width 32, scaled with it",
        "under the equal recipe SGD replaces the published AdamW of learning rate 1e-4",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {
        "deep_supervision": {
            "default": False,
            "help": "whether the coarser decoder stages answer too, which the original's do not",
            "labels": {True: "deep supervision"},
        }
    },
    "encoder_keys": ["network.vit."],
    "backbone": "own",
    "published_recipe": {
        "source": "MIC-DKFZ/MedNeXt, "
        "nnunet_mednext/training/network_training/nnUNet_variants/baselines/nnUNetTrainerV2_UNETR.py, a "
        "port by the authors of MedNeXt",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0001,
            "epsilon": 0.0001,
            "weight_decay": 3e-05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "gradient_clip": 12.0,
        },
        "not_taken": ["the learning rate changes once per epoch there, per step here"],
    },
}

TOKEN = 16  # edge of one token in voxels


class AnySizeUNETR(UNETR):
    """MONAI's UNETR for any input size that is a multiple of 16, with interpolated position embeddings.

    With `deep_supervision` it also answers at strides 2, 4 and 8.
    """

    def __init__(self, *, feature_size: int, out_channels: int, deep_supervision: bool, **arguments: Any):
        super().__init__(feature_size=feature_size, out_channels=out_channels, **arguments)
        self.coarser = coarser_heads([feature_size * 2**level for level in (1, 2, 3)], out_channels, deep_supervision)
        for block in self.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # MONAI creates this norm but never uses it without cross attention

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first."""
        embedded_BCZYX = self.vit.patch_embedding.patch_embeddings(images_BCZYX)
        grid_zyx = embedded_BCZYX.shape[2:]
        tokens_BNC = embedded_BCZYX.flatten(2).transpose(1, 2) + self._positions(grid_zyx)
        volumes = []
        for block in self.vit.blocks:
            tokens_BNC = block(tokens_BNC)
            volumes.append(_volume(tokens_BNC, grid_zyx))
        decoded = [self.decoder5(_volume(self.vit.norm(tokens_BNC), grid_zyx), self.encoder4(volumes[9]))]
        decoded.append(self.decoder4(decoded[-1], self.encoder3(volumes[6])))
        decoded.append(self.decoder3(decoded[-1], self.encoder2(volumes[3])))
        logits = self.out(self.decoder2(decoded[-1], self.encoder1(images_BCZYX)))
        return [logits, *answers_of(self.coarser, reversed(decoded))]

    def _positions(self, grid_zyx: torch.Size) -> Tensor:
        positions_1NC = self.vit.patch_embedding.position_embeddings
        if tuple(grid_zyx) == self.feat_size:
            return positions_1NC
        volume_1CZYX = _volume(positions_1NC, self.feat_size)
        volume_1CZYX = nn.functional.interpolate(volume_1CZYX, size=tuple(grid_zyx), mode="trilinear")
        return volume_1CZYX.flatten(2).transpose(1, 2)


def _volume(tokens_BNC: Tensor, grid_zyx: tuple[int, ...]) -> Tensor:
    return tokens_BNC.transpose(1, 2).unflatten(2, tuple(grid_zyx))


def build(tasks: TaskSet, spec: NetworkSpec, *, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    network = AnySizeUNETR(
        in_channels=task.num_channels,
        out_channels=task.num_classes,
        img_size=padded_size_zyx(spec.patch_size_zyx, (TOKEN,) * 3),
        feature_size=spec.base_features // 2,
        hidden_size=spec.base_features * 24,
        mlp_dim=spec.base_features * 96,
        deep_supervision=deep_supervision,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=(TOKEN,) * 3)
