"""MONAI's Swin UNETR, which also answers at its coarser decoder stages when asked for.

Axis legend: B batch, C channel, K class, Z Y X space.
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets import SwinUNETR
from torch import Tensor

from models.blocks.own_network import PerTaskModel, answers_of, coarser_heads, the_task
from models.interface import NetworkSpec
from segbench.core.task import TaskSet

STAGES = 4


class SupervisedSwinUNETR(SwinUNETR):
    """Swin UNETR with a 1x1x1 output at strides 2, 4, 8 and 16 when `deep_supervision` is set."""

    def __init__(self, *, feature_size: int, out_channels: int, deep_supervision: bool, **options: Any):
        super().__init__(feature_size=feature_size, out_channels=out_channels, **options)
        widths = [feature_size * 2**stage for stage in range(STAGES)]
        self.coarser = coarser_heads(widths, out_channels, deep_supervision)

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX`, full resolution first."""
        hidden = self.swinViT(images_BCZYX, self.normalize)
        skips = [self.encoder2(hidden[0]), self.encoder3(hidden[1]), self.encoder4(hidden[2])]
        decoded = [self.decoder5(self.encoder10(hidden[4]), hidden[3])]
        for decoder in (self.decoder4, self.decoder3, self.decoder2):
            decoded.append(decoder(decoded[-1], skips.pop()))
        logits = self.out(self.decoder1(decoded[-1], self.encoder1(images_BCZYX)))
        return [logits, *answers_of(self.coarser, reversed(decoded))]


def feature_size(spec: NetworkSpec) -> int:
    """Return 48 at the base width 32, otherwise the nearest multiple of 12: three heads of even width need that."""
    return max(1, round(spec.base_features * 1.5 / 12)) * 12


def per_task(tasks: TaskSet, spec: NetworkSpec, *, multiple_zyx: Any, **options: Any) -> PerTaskModel:
    """Return the network for the only task of `tasks`.

    Args:
        tasks: one task.
        spec: its base width gives the feature size.
        multiple_zyx: what input sizes must be multiples of.
        options: those of MONAI and `deep_supervision`.
    """
    task = the_task(tasks)
    network = SupervisedSwinUNETR(
        in_channels=task.num_channels, out_channels=task.num_classes, feature_size=feature_size(spec), **options
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=multiple_zyx)
