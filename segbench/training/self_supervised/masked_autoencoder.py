"""Masked autoencoding for convolutional networks: blocks of the patch are set to zero and rebuilt from the rest.

Axis legend: B batch, C channel, Z Y X space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.blocks.placement import on_device
from models.interface import NetworkSpec
from segbench.core.errors import input_error
from segbench.core.task import TaskSet
from segbench.training.objective import Reconstruction

CARD = {
    "title": "Masked autoencoder",
    "citation": "He et al., Masked autoencoders are scalable vision learners, CVPR 2022; blocks on the grid of the "
    "deepest features as in Tian et al., SparK, ICLR 2023",
    "url": "https://arxiv.org/abs/2111.06377",
    "licence": "Apache-2.0",
    "fidelity": "concept",
    "does": [
        "the patch is divided into blocks of one voxel of the bottleneck each (the product of all poolings); a stated "
        "fraction of the blocks of each sample, drawn at random, is set to 0 in all channels",
        "encoder, decoder and a linear head rebuild the patch; the loss is the mean squared error over the masked "
        "voxels alone, in the intensities that the preprocessing leaves",
    ],
    "deviations": [
        "a convolutional U-Net that sees the zeros: no tokens are left out as in a transformer, no sparse convolution "
        "and no mask token as in SparK",
        "the decoder is the one that is fine-tuned, skips included, not a light one that is thrown away",
        "targets are not normalised per block",
    ],
    "options": {"mask_ratio": {"default": 0.75, "help": "fraction of the blocks that is masked, between 0 and 1"}},
    "encoder_keys": ["encoder.", "decoder."],
    "published_recipe": {
        "source": "MIC-DKFZ/nnssl, src/nnssl/training/nnsslTrainer/masked_image_modeling/BaseMAETrainer.py and "
        "AbstractTrainer.py: a masked convolutional U-Net on volumes",
        "keys": {
            "optimiser": "sgd",
            "initial_learning_rate": 0.01,
            "momentum": 0.99,
            "weight_decay": 3e-05,
            "learning_rate_schedule": "poly",
            "gradient_clip": 12.0,
        },
        "not_taken": [
            "the learning rate changes once per epoch there; the exponent of its schedule was not read",
            "batch size 2, 6 or 8 by the variant of the trainer",
            "for transformers on photographs facebookresearch/mae has AdamW with betas 0.9 and 0.95, 1.5e-4 for 256 "
            "samples of 4096, weight decay 0.05 and 40 of 800 epochs of warm-up",
        ],
    },
}


class MaskedAutoencoder(Reconstruction):
    """Rebuilds masked blocks."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, mask_ratio: float):
        super().__init__(tasks, spec)
        cells = int(np.prod(spec.bottleneck_grid_zyx))
        self.masked_cells = round(mask_ratio * cells)
        if not 0 < self.masked_cells < cells:
            raise input_error(
                "masked_autoencoder: mask_ratio",
                found=f"{mask_ratio}, which masks {self.masked_cells} of {cells} blocks",
                expected="a fraction that masks some blocks and leaves some",
                fix="change mask_ratio, or the patch size",
            )

    def forward(self, images_BCZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean squared error over the masked voxels."""
        mask_B1ZYX = on_device(torch.stack([self.mask(rng) for _ in images_BCZYX])[:, None], images_BCZYX.device)
        rebuilt_BCZYX = self.reconstruct(images_BCZYX.masked_fill(mask_B1ZYX, 0))
        squares_BCZYX = (rebuilt_BCZYX - images_BCZYX.float()).square() * mask_B1ZYX
        return squares_BCZYX.sum() / (mask_B1ZYX.sum() * images_BCZYX.shape[1])

    def mask(self, rng: np.random.Generator) -> Tensor:
        """Return where a patch is masked, `mask_ZYX` (bool): whole blocks, always the same number of them."""
        cells = np.zeros(self.spec.bottleneck_grid_zyx, dtype=bool)
        cells.flat[rng.permutation(cells.size)[: self.masked_cells]] = True
        return torch.as_tensor(np.kron(cells, np.ones(self.spec.downsampling_zyx, dtype=bool)))


def build(tasks: TaskSet, spec: NetworkSpec, *, mask_ratio: float = 0.75) -> MaskedAutoencoder:
    """Return the objective for a set of tasks; a fraction that masks nothing or everything raises `InputError`."""
    return MaskedAutoencoder(tasks, spec, mask_ratio=mask_ratio)
