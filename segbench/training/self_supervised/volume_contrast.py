"""Volume contrast: a random crop is told apart by how much it overlaps the crops of a grid over the same patch.

Axis legend: B batch, C channel, Z Y X space, N crops of the grid, M random crops, D embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import SharedEncoder, initialise_weights
from models.interface import NetworkSpec
from segbench.core.errors import input_error
from segbench.core.task import TaskSet
from segbench.training.objective import Objective
from segbench.training.views import intensity_curve, random_start, window

CARD = {
    "title": "Volume contrast",
    "citation": "Wu et al., VoCo: A simple-yet-effective volume contrastive learning framework for 3D medical image "
    "analysis, CVPR 2024",
    "url": "https://arxiv.org/abs/2402.17300",
    "licence": "Apache-2.0",
    "fidelity": "concept",
    "does": [
        "the patch is halved along each axis: eight base crops that tile it",
        "random crops of the same size lie anywhere in the patch; a random monotone Bezier curve changes their "
        "intensities",
        "a crop's embedding is the mean of the deepest encoder features, two linear layers with a batch norm over all "
        "crops of the step, and scaling to length 1",
        "the cosine similarity of a random crop with each base crop, negative ones as 0, must be the fraction of its "
        "volume that overlaps that base crop: the mean over crops of -log(1 - 0.999 |similarity - fraction|), base "
        "crops as constants",
        "added to it: the mean absolute cosine similarity between different base crops of a patch, which keeps them "
        "apart",
    ],
    "deviations": [
        "the shared backbone and the harness's patches, augmentation and optimiser",
        "base crops tile a training patch, not a whole volume, and crops are not resized, so that a step costs "
        "1 + crops / 8 passes of the encoder",
        "an axis whose bottleneck grid is odd or shorter than four is not halved",
        "the encoder alone is trained: the decoder starts anew downstream",
    ],
    "options": {
        "crops": {"default": 4, "help": "random crops per patch"},
        "embedding": {"default": 128, "help": "length of the embedding"},
    },
    "encoder_keys": ["encoder."],
}
LARGEST_GAP = 1 - 1e-3  # scales the gap, so that the logarithm is finite and has a slope everywhere


class VolumeContrast(Objective):
    """Contrasts random crops with the crops of a grid."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, crops: int, embedding: int):
        super().__init__(tasks, spec)
        self.crops = crops
        self.parts_zyx = tuple(2 if cells >= 4 and cells % 2 == 0 else 1 for cells in spec.bottleneck_grid_zyx)
        if self.parts_zyx == (1, 1, 1):
            raise input_error(
                "volume_contrast: network.patch_size_zyx",
                found=f"{spec.bottleneck_grid_zyx} voxels at the bottleneck",
                expected="an even number of at least 4 along some axis",
                fix="use a larger patch or fewer poolings",
            )
        width = spec.features[-1]
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        # the encoder's instance norms leave nearly equal means: without a batch norm no two embeddings differ
        layers = nn.Linear(width, width), nn.BatchNorm1d(width), nn.LeakyReLU(0.01), nn.Linear(width, embedding)
        self.projection = nn.Sequential(*layers)
        self.apply(initialise_weights)

    def forward(self, images_BCZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the loss of the random crops against the grid plus that of the grid within itself."""
        size_zyx = tuple(size // parts for size, parts in zip(images_BCZYX.shape[2:], self.parts_zyx, strict=True))
        grid = [tuple(i * n for i, n in zip(cell, size_zyx, strict=True)) for cell in np.ndindex(*self.parts_zyx)]
        crops, fractions = [], []
        for image_CZYX in images_BCZYX:
            starts = [random_start(image_CZYX.shape[1:], size_zyx, rng) for _ in range(self.crops)]
            crops += [image_CZYX[window(start, size_zyx)] for start in grid]
            crops += [intensity_curve(image_CZYX[window(start, size_zyx)], rng) for start in starts]
            fractions.append([[overlap(start, base, size_zyx) for base in grid] for start in starts])
        embedded_BPD = self.embed(torch.stack(crops)).unflatten(0, (len(images_BCZYX), -1))
        base_BND, random_BMD = embedded_BPD[:, : len(grid)], embedded_BPD[:, len(grid) :]
        fractions_BMN = torch.tensor(fractions, device=images_BCZYX.device)
        return overlap_loss(random_BMD, base_BND, fractions_BMN) + separation_loss(base_BND)

    def embed(self, crops_BCZYX: Tensor) -> Tensor:
        """Return one vector of length 1 per crop, `embedded_BD`, float32."""
        pooled_BC = self.encoder(crops_BCZYX)[-1].mean((2, 3, 4))
        return functional.normalize(self.projection(pooled_BC).float(), dim=1)


def overlap(start_zyx, other_zyx, size_zyx) -> float:
    """Return the fraction (0..1) of a window's volume that lies in another of the same size."""
    sides = zip(start_zyx, other_zyx, size_zyx, strict=True)
    return float(np.prod([max(0.0, 1 - abs(a - b) / size) for a, b, size in sides]))


def overlap_loss(random_BMD: Tensor, base_BND: Tensor, fractions_BMN: Tensor) -> Tensor:
    """Return the mean of -log(1 - |similarity - fraction|); no gradient reaches the base crops."""
    similarity_BMN = torch.einsum("bmd,bnd->bmn", random_BMD, base_BND.detach()).relu()
    gap_BMN = LARGEST_GAP * (similarity_BMN - fractions_BMN).abs()
    return -torch.log1p(-gap_BMN).mean()


def separation_loss(base_BND: Tensor) -> Tensor:
    """Return the mean absolute similarity between different base crops of one patch."""
    similarity_BNN = torch.einsum("bnd,bmd->bnm", base_BND, base_BND)
    count = base_BND.shape[1]
    different = ~torch.eye(count, dtype=torch.bool, device=base_BND.device)
    return similarity_BNN[:, different].abs().mean()


def build(tasks: TaskSet, spec: NetworkSpec, *, crops: int = 4, embedding: int = 128) -> VolumeContrast:
    """Return the objective for a set of tasks; a patch too small to be halved raises `InputError`."""
    return VolumeContrast(tasks, spec, crops=crops, embedding=embedding)
