"""Restoration: the patch is corrupted in four ways and the network gives the clean one back.

Axis legend: B batch, C channel, Z Y X space, N windows, V voxels of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from models.blocks.placement import on_device
from models.interface import NetworkSpec
from segbench.core.task import TaskSet
from segbench.training.objective import Reconstruction
from segbench.training.views import intensity_curve, random_start, window

CARD = {
    "title": "Restoration",
    "citation": "Zhou et al., Models Genesis, Medical Image Analysis 67, 2021 (first at MICCAI 2019)",
    "url": "https://doi.org/10.1016/j.media.2020.101840",
    "licence": "Apache-2.0",
    "fidelity": "concept",
    "does": [
        "the intensities of a patch pass a random monotone Bezier curve, bright and dark swapped in half of the cases",
        "the voxels of small windows are shuffled, each window within itself",
        "either one to five boxes inside the patch become noise (in-painting), or all but one to five boxes "
        "(out-painting)",
        "encoder, decoder and a linear head restore the clean patch; the loss is the mean squared error over all "
        "voxels, in the intensities that the preprocessing leaves",
    ],
    "deviations": [
        "the shared backbone and the harness's patches, augmentation and optimiser",
        "the windows that are shuffled tile the patch, so that each voxel moves once; their edge is 2 voxels up to an "
        "eighth of the patch",
        "noise is uniform between the minimum and the maximum of a channel, since intensities are not scaled to 0..1",
        "no flip among the distortions: the augmentation mirrors before",
    ],
    "options": {
        "curve": {"default": 0.9, "at_least": 0, "at_most": 1, "help": "probability of the intensity curve"},
        "shuffle": {"default": 0.5, "at_least": 0, "at_most": 1, "help": "probability of the local shuffling"},
        "paint": {"default": 0.9, "at_least": 0, "at_most": 1, "help": "probability of in-painting or out-painting"},
        "outpaint": {"default": 0.8, "at_least": 0, "at_most": 1, "help": "fraction of out-painting among these"},
    },
    "encoder_keys": ["encoder.", "decoder."],
    "published_recipe": {
        "source": "MrGiovanni/ModelsGenesis, pytorch/config.py and pytorch/Genesis_Chest_CT.py",
        "keys": {
            "optimiser": "sgd",
            "initial_learning_rate": 1.0,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "gradient_clip": None,
            "batch_size": 6,
        },
        "not_taken": [
            "the learning rate is halved every 40 epochs there; training ends when 50 epochs bring no gain",
            "plain momentum there, Nesterov's here",
            "images scaled to 0..1, which the learning rate is made for",
        ],
    },
}
BOXES = 5
INNER_EDGE = (1 / 6, 1 / 3)  # of a box that becomes noise, as a fraction of the patch
OUTER_EDGE = (3 / 7, 4 / 7)  # of a box that stays


class Restoration(Reconstruction):
    """Restores corrupted patches."""

    def __init__(
        self, tasks: TaskSet, spec: NetworkSpec, *, curve: float, shuffle: float, paint: float, outpaint: float
    ):
        super().__init__(tasks, spec)
        self.curve, self.shuffle, self.paint, self.outpaint = curve, shuffle, paint, outpaint

    def forward(self, images_BCZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean squared error between the restored and the clean patch."""
        corrupted_BCZYX = torch.stack([self.corrupt(image_CZYX, rng) for image_CZYX in images_BCZYX])
        return functional.mse_loss(self.reconstruct(corrupted_BCZYX), images_BCZYX.float())

    def corrupt(self, image_CZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the distorted patch; the clean one is left as it is."""
        curve, shuffle, paint, outside = rng.random(4) < (self.curve, self.shuffle, self.paint, self.outpaint)
        if curve:
            image_CZYX = intensity_curve(image_CZYX, rng, may_fall=True)
        if shuffle:
            image_CZYX = shuffle_windows(image_CZYX, rng)
        if paint:
            image_CZYX = paint_boxes(image_CZYX, rng, outside=bool(outside))
        return image_CZYX


def shuffle_windows(image_CZYX: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the image with the voxels of each window in random order, the same for all channels.

    Windows of one random size tile the patch from a random start; what is left at the borders stays.
    """
    shape_zyx = image_CZYX.shape[1:]
    edges_zyx = [int(rng.integers(2, max(2, size // 8) + 1)) for size in shape_zyx]
    inside_zyx = [size // edge * edge for size, edge in zip(shape_zyx, edges_zyx, strict=True)]
    place = window(random_start(shape_zyx, inside_zyx, rng), inside_zyx)
    a, b, c = edges_zyx
    part_CNV = rearrange(image_CZYX[place], "C (z a) (y b) (x c) -> C (z y x) (a b c)", a=a, b=b, c=c)
    order_NV = on_device(torch.as_tensor(rng.random(part_CNV.shape[1:]).argsort(1)), image_CZYX.device)
    part_CNV = part_CNV.gather(2, order_NV.expand_as(part_CNV))
    z, y, x = (size // edge for size, edge in zip(inside_zyx, edges_zyx, strict=True))
    result_CZYX = image_CZYX.clone()
    result_CZYX[place] = rearrange(part_CNV, "C (z y x) (a b c) -> C (z a) (y b) (x c)", z=z, y=y, x=x, a=a, b=b)
    return result_CZYX


def paint_boxes(image_CZYX: Tensor, rng: np.random.Generator, *, outside: bool) -> Tensor:
    """Return the image with noise inside one to five boxes, or outside of them."""
    shape_zyx = image_CZYX.shape[1:]
    hidden_ZYX = np.full(shape_zyx, outside)
    low_edge, high_edge = OUTER_EDGE if outside else INNER_EDGE
    for _ in range(rng.integers(1, BOXES + 1)):
        edges_zyx = [max(1, int(rng.uniform(low_edge, high_edge) * size)) for size in shape_zyx]
        hidden_ZYX[window(random_start(shape_zyx, edges_zyx, rng), edges_zyx)[1:]] = not outside
    noise_CZYX = on_device(torch.as_tensor(rng.random(image_CZYX.shape, dtype=np.float32)), image_CZYX.device)
    low, high = image_CZYX.amin((1, 2, 3), keepdim=True), image_CZYX.amax((1, 2, 3), keepdim=True)
    hidden_ZYX = on_device(torch.as_tensor(hidden_ZYX), image_CZYX.device)
    return torch.where(hidden_ZYX, low + (high - low) * noise_CZYX, image_CZYX)


def build(
    tasks: TaskSet,
    spec: NetworkSpec,
    *,
    curve: float = 0.9,
    shuffle: float = 0.5,
    paint: float = 0.9,
    outpaint: float = 0.8,
) -> Restoration:
    """Return the objective for a set of tasks."""
    return Restoration(tasks, spec, curve=curve, shuffle=shuffle, paint=paint, outpaint=outpaint)
