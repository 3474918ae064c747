"""Images as pre-trained weights saw theirs: axes permuted and CT scaled around the network that holds the weights.

Axis legend: B batch, C channel, K class, Z Y X space in this benchmark's order; N, the network's own order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from models.interface import NetworkSpec, SegmentationModel
from segbench.core.cards import OWN_AXES
from segbench.core.task import Task


@dataclass(frozen=True)
class Scale:
    """Linear map of a channel to the intensities of the weights, clipped to their range."""

    factor: float
    offset: float
    low: float
    high: float


@dataclass(frozen=True)
class Convention:
    """What weights expect: the order of spatial axes, such as 'xyz', and a scale per channel, None for as it is."""

    axes: str = OWN_AXES
    scales: tuple[Scale | None, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether images are already what the weights expect."""
        return self.axes == OWN_AXES and not any(self.scales)

    @property
    def to_network(self) -> tuple[int, ...]:
        """Order of the five axes of a batch in which the network sees it."""
        return (0, 1, *(2 + OWN_AXES.index(letter) for letter in self.axes))

    @property
    def from_network(self) -> tuple[int, ...]:
        """Order of the five axes of an output that leads back to z, y, x."""
        return tuple(self.to_network.index(axis) for axis in range(5))

    def spec(self, spec: NetworkSpec) -> NetworkSpec:
        """Return a size whose patch and kernels stand in the network's order."""

        def turned(sizes: Sequence[int]) -> tuple[int, int, int]:
            first, second, third = (sizes[OWN_AXES.index(letter)] for letter in self.axes)
            return first, second, third

        return replace(
            spec,
            patch_size_zyx=turned(spec.patch_size_zyx),
            pool_kernels_zyx=tuple(turned(kernel) for kernel in spec.pool_kernels_zyx),
            conv_kernels_zyx=tuple(turned(kernel) for kernel in spec.conv_kernels_zyx),
        )


class InConvention(SegmentationModel):
    """A network between images in this benchmark's convention and weights that know another one.

    `network` was built with `Convention.spec`; its outputs come back in the order z, y, x.
    """

    def __init__(self, network: SegmentationModel, spec: NetworkSpec, convention: Convention):
        super().__init__(network.tasks, spec)
        self.network, self.convention = network, convention
        self.activation, self.task_conditioned = network.activation, network.task_conditioned
        self.class_loss, self.scale_rule = network.class_loss, network.scale_rule

    def encode(self, images_BCZYX: Tensor) -> Any:
        """Return the network's features of the converted images."""
        return self.network.encode(self._converted(images_BCZYX))

    def decode(self, features: Any, task: Task) -> list[Tensor]:
        """Return `logits_BKZYX` of every scale, in the order z, y, x."""
        order = self.convention.from_network
        return [logits_BKNNN.permute(order).contiguous() for logits_BKNNN in self.network.decode(features, task)]

    def probabilities(self, logits_BKZYX: Tensor, task: Task | None = None) -> Tensor:
        """Return the network's probabilities, which look at single voxels."""
        return self.network.probabilities(logits_BKZYX, task)

    def targets(self, labels_BZYX: Tensor, task: Task) -> Tensor:
        """Return the network's targets, which look at single voxels."""
        return self.network.targets(labels_BZYX, task)

    def diagnostics(self) -> dict[str, dict[str, Any]]:
        """Return those of the network."""
        return self.network.diagnostics()

    def _converted(self, images_BCZYX: Tensor) -> Tensor:
        scales = self.convention.scales
        if any(scales):
            channels = [
                channel if scale is None else (channel * scale.factor + scale.offset).clamp(scale.low, scale.high)
                for channel, scale in zip(images_BCZYX.unbind(1), scales, strict=True)
            ]
            images_BCZYX = torch.stack(channels, dim=1)
        return images_BCZYX.permute(self.convention.to_network).contiguous()


def holder_of_weights(model: SegmentationModel) -> SegmentationModel:
    """Return the network whose tensors pre-trained weights name."""
    return model.network if isinstance(model, InConvention) else model


def scale_between(own: tuple[float, float], window_hu: Sequence[float], scaled_to: Sequence[float]) -> Scale | None:
    """Return the scale from a preprocessed CT value v, which is `own[0] + v * own[1]` in HU, to that of the weights.

    Args:
        own: HU at 0, and HU per unit.
        window_hu: window that the weights saw.
        scaled_to: what its ends became.

    Returns:
        The scale, or None where the values already are those of the weights.
    """
    (low_hu, high_hu), (low, high) = window_hu, scaled_to
    slope = (high - low) / (high_hu - low_hu)
    factor, offset = own[1] * slope, low + (own[0] - low_hu) * slope
    return None if (round(factor, 9), round(offset, 9)) == (1.0, 0.0) else Scale(factor, offset, low, high)
