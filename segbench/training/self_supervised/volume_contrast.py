"""Volume contrast: a crop is placed by how much it overlaps the sixteen crops of a grid over the same patch.

Axis legend: B batch, C channel, Z Y X space, N crops of the grid, M random crops, D embedding. Written from the facts
of the paper and of its released settings. The teacher is a moving average of the student.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import SharedEncoder, initialise_weights
from models.blocks.placement import on_device
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
        "the patch is divided into four along y and four along x: sixteen base crops",
        "random crops of the same size lie anywhere in the patch; a random monotone Bezier curve changes their "
        "intensities",
        "a crop's embedding is made of the means of the features of every encoder stage by three linear layers, with a "
        "batch norm over all crops of the step and ReLU after the first two",
        "a teacher, which follows the student and gets no gradient, embeds the same crops",
        "the overlap of a random crop with each base crop is predicted as a cosine similarity, negative ones as 0: the "
        "mean of student against the teacher's base crops and teacher against the student's",
        "where the fraction of overlap is above 0 the loss is -log(1 - |similarity - fraction|), weighted by the "
        "fraction; where it is 0 it is the mean square of the similarity",
        "added to it: the mean square of the similarity between different base crops of a patch, negative ones as 0",
        "after each step the teacher moves towards the student by 1 - momentum; downstream networks start from the "
        "student's encoder",
    ],
    "deviations": [
        "the shared backbone instead of Swin UNETR, and the harness's patches, augmentation and optimiser",
        "base crops tile a training patch, not a whole volume, and no crop is resized",
        "the teacher starts as a copy of the student, and the original's random flips, quarter turns and shifts of "
        "intensity are left to the augmentation and the curve",
        "the encoder alone is trained: the decoder starts anew downstream",
    ],
    "options": {
        "crops": {"at_least": 1, "default": 2, "help": "random crops per patch"},
        "embedding": {
            "at_least": 1,
            "default": 2048,
            "help": "length of the embedding and width of the layers before it",
        },
        "momentum": {
            "default": 0.9,
            "at_least": 0,
            "at_most": 1,
            "help": "fraction of itself that the teacher keeps per step",
        },
    },
    "encoder_keys": ["encoder."],
    "published_recipe": {
        "source": "Luffy03/VoCo, voco_train.py",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0001,
            "weight_decay": 0.01,
            "learning_rate_schedule": "cosine",
            "warmup": 0.02,
            "gradient_clip": None,
            "batch_size": 2,
        },
        "not_taken": [
            "5,000 of 250,000 steps of warm-up, stated here as a fraction of the run; the weight decay is PyTorch's "
            "default, which the script leaves",
            "AMSGrad",
        ],
    },
}
PARTS_ZYX = (1, 4, 4)
EPSILON = 1e-6  # keeps the logarithm finite


class VolumeContrast(Objective):
    """A student and a teacher that place random crops among the crops of a grid."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, crops: int, embedding: int, momentum: float):
        super().__init__(tasks, spec)
        self.crops, self.momentum = crops, momentum
        self.size_zyx = [size // parts for size, parts in zip(spec.patch_size_zyx, PARTS_ZYX, strict=True)]
        steps_zyx = spec.downsampling_zyx
        deepest = math.prod(-(-size // step) for size, step in zip(self.size_zyx, steps_zyx, strict=True))
        if min(self.size_zyx) < 1 or deepest < 2:
            raise input_error(
                "volume_contrast: network.patch_size_zyx",
                found=f"base crops of {self.size_zyx} voxels at a down-sampling of {steps_zyx}",
                expected="at least two voxels at the bottleneck for a quarter of the patch along y and x",
                fix="use a larger patch or fewer poolings",
            )
        self.encoder = SharedEncoder(spec, tasks.channel_counts)
        self.encoder.apply(initialise_weights)
        self.projection = nn.Sequential(
            *_hidden(sum(spec.features), embedding), *_hidden(embedding, embedding), nn.Linear(embedding, embedding)
        )
        self.teacher = copy.deepcopy(nn.ModuleList([self.encoder, self.projection])).requires_grad_(requires_grad=False)

    def forward(self, images_BCZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the loss of the random crops against the grid plus that of the grid within itself."""
        grid = [tuple(i * n for i, n in zip(cell, self.size_zyx, strict=True)) for cell in np.ndindex(*PARTS_ZYX)]
        crops, fractions = [], []
        for image_CZYX in images_BCZYX:
            starts = [random_start(image_CZYX.shape[1:], self.size_zyx, rng) for _ in range(self.crops)]
            crops += [image_CZYX[window(start, self.size_zyx)] for start in grid]
            crops += [intensity_curve(image_CZYX[window(start, self.size_zyx)], rng) for start in starts]
            fractions.append([[overlap(start, base, self.size_zyx) for base in grid] for start in starts])
        crops_BCZYX, shape = torch.stack(crops), (len(images_BCZYX), -1)
        student_BPD = embedded(self.encoder, self.projection, crops_BCZYX).unflatten(0, shape)
        with torch.no_grad():
            teacher_BPD = embedded(*self.teacher, crops_BCZYX).unflatten(0, shape)
        base_BND, random_BMD = student_BPD[:, : len(grid)], student_BPD[:, len(grid) :]
        taught_base_BND, taught_random_BMD = teacher_BPD[:, : len(grid)], teacher_BPD[:, len(grid) :]
        similarity_BMN = (similarity(random_BMD, taught_base_BND) + similarity(taught_random_BMD, base_BND)) / 2
        fractions_BMN = on_device(torch.tensor(fractions), images_BCZYX.device)
        return overlap_loss(similarity_BMN, fractions_BMN) + separation_loss(base_BND)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student."""
        for teacher, student in zip(self.teacher, (self.encoder, self.projection), strict=True):
            for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
                own.lerp_(other, 1 - self.momentum)


def _hidden(inputs: int, outputs: int) -> list[nn.Module]:
    norm = nn.BatchNorm1d(outputs, affine=False, track_running_stats=False)
    return [nn.Linear(inputs, outputs), norm, nn.ReLU()]


def embedded(encoder: nn.Module, projection: nn.Module, crops_BCZYX: Tensor) -> Tensor:
    """Return one vector of length 1 per crop, `embedded_BD`, float32."""
    pooled_BC = torch.cat([x_BCZYX.mean((2, 3, 4)) for x_BCZYX in encoder(crops_BCZYX)], dim=1)
    return functional.normalize(projection(pooled_BC).float(), dim=1)


def overlap(start_zyx: Sequence[int], other_zyx: Sequence[int], size_zyx: Sequence[int]) -> float:
    """Return the fraction (0..1) of a window's volume that lies in another of the same size."""
    sides = zip(start_zyx, other_zyx, size_zyx, strict=True)
    return float(np.prod([max(0.0, 1 - abs(a - b) / size) for a, b, size in sides]))


def similarity(random_BMD: Tensor, base_BND: Tensor) -> Tensor:
    """Return the cosine similarity of each random crop with each base crop of its patch, negative ones as 0."""
    products_BMND = random_BMD[:, :, None] * base_BND[:, None]  # not a matrix product: that would round under autocast
    return products_BMND.sum(dim=-1).relu()


def overlap_loss(similarity_BMN: Tensor, fractions_BMN: Tensor) -> Tensor:
    """Return the loss of the similarities against the fractions of overlap, a scalar.

    For each patch, the mean of -log(1 - |similarity - fraction|) weighted by the fraction, plus the mean square of the
    similarities where the fraction is 0; then the mean over patches.
    """
    axes = (1, 2)
    gap_BMN = (similarity_BMN - fractions_BMN).abs()
    near_B = -(fractions_BMN * (1 - gap_BMN + EPSILON).log()).sum(axes) / (fractions_BMN.sum(axes) + EPSILON)
    apart_BMN = (fractions_BMN == 0).float()
    far_B = (apart_BMN * similarity_BMN.square()).sum(axes) / (apart_BMN.sum(axes) + EPSILON)
    return (near_B + far_B).mean()


def separation_loss(base_BND: Tensor) -> Tensor:
    """Return the mean square of the similarities between different base crops of a patch, negative ones as 0.

    Of each pair the later crop is a constant.
    """
    similarity_BNN = similarity(base_BND, base_BND.detach())
    count = base_BND.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=base_BND.device)
    return similarity_BNN[:, first, second].square().mean()


def build(
    tasks: TaskSet, spec: NetworkSpec, *, crops: int = 2, embedding: int = 2048, momentum: float = 0.9
) -> VolumeContrast:
    """Return the objective for a set of tasks; a patch too small to be divided raises `InputError`."""
    return VolumeContrast(tasks, spec, crops=crops, embedding=embedding, momentum=momentum)
