"""The contract of a self-supervised objective: it sees images, never labels, and leaves an encoder to start from.

Axis legend: B batch, C channel, Z Y X space. An objective is one file below `self_supervised/`: a CARD, a subclass of
`Objective` and `build(tasks, spec, **options)`. Its tensors below the card's `encoder_keys` carry the names of the
shared backbone, so that `models.weights.transfer` finds them; there is one input stem per channel count of the tasks.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from torch import Tensor, nn

from models.backbone import SharedDecoder, SharedEncoder, initialise_weights
from models.interface import NetworkSpec, stem_key
from segbench.core.task import TaskSet


class Objective(nn.Module):
    """What is trained without labels; `forward` returns the loss."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__()
        self.tasks = tasks
        self.spec = spec

    def forward(self, images_BCZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the loss of a batch (a scalar, float32); all randomness is drawn from `rng`."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows a step of the optimiser, such as moving a teacher; nothing by default."""


class Reconstruction(Objective):
    """Encoder and decoder of the shared backbone with a linear head per channel count that returns an image."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec):
        super().__init__(tasks, spec)
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.decoder = SharedDecoder(spec)
        self.heads = nn.ModuleDict(
            {stem_key(channels): nn.Conv3d(spec.features[0], channels, 1) for channels in tasks.channel_counts}
        )
        self.apply(initialise_weights)

    def reconstruct(self, images_BCZYX: Tensor) -> Tensor:
        """Return an image of the same shape, float32."""
        features = self.decoder(self.encoder(images_BCZYX))
        return self.heads[stem_key(images_BCZYX.shape[1])](features[0]).float()


def build_objective(name: str, tasks: TaskSet, spec: NetworkSpec, **options: Any) -> Objective:
    """Build the objective of a file below `self_supervised/`; its options are those of its card."""
    return importlib.import_module(f"segbench.training.self_supervised.{name}").build(tasks, spec, **options)
