"""Deep self-distillation: every stage of a student's encoder predicts the features of a teacher that follows it slowly.

Axis legend: B batch, C channel, Z Y X space, V views, N voxels of the bottleneck's grid, D embedding. The teacher is
called `encoder`, because a downstream network is initialised with it.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from models.backbone import SharedEncoder, initialise_weights
from models.interface import NetworkSpec
from segbench.core.task import TaskSet
from segbench.training.objective import Objective
from segbench.training.views import intensity_curve, window

CARD = {
    "title": "Deep self-distillation",
    "citation": "Ye et al., DeSD: Self-supervised learning with deep self-distillation for 3D medical image "
    "segmentation, MICCAI 2022; predictor and loss of Grill et al., BYOL, NeurIPS 2020",
    "url": "https://github.com/yeerwen/DeSD",
    "licence": "Apache-2.0",
    "fidelity": "concept",
    "does": [
        "two crops of each patch, one voxel of the bottleneck shorter along each axis of more than two, lie at random "
        "on its grid; each passes a random monotone Bezier curve of its intensities",
        "a student and a teacher encoder see both; the teacher's deepest features pass a projection (two linear "
        "layers, batch norm between them), the features of each down-sampled stage of the student, averaged onto the "
        "bottleneck's grid, a projection of their own and a predictor",
        "at the voxels of the grid that lie in both crops, each stage of the student predicts the teacher's projection "
        "of the other crop: 2 - 2 cosine similarity, mean over stages, voxels and both directions",
        "no gradient reaches the teacher: after each step it and its projection move towards the student's deepest "
        "ones by 1 - momentum; the teacher's encoder is what downstream networks start from",
    ],
    "deviations": [
        "the shared backbone and the harness's patches, augmentation and optimiser",
        "features are compared voxel by voxel: batches of two patches give one vector per patch little to differ from",
        "features are matched by cosine behind a predictor, not through prototypes",
        "momentum is constant and all stages weigh the same",
        "the encoder alone is trained: the decoder starts anew downstream",
    ],
    "options": {
        "momentum": {
            "default": 0.99,
            "at_least": 0,
            "at_most": 1,
            "help": "fraction of itself that the teacher keeps per step",
        },
        "embedding": {"at_least": 1, "default": 128, "help": "length of the features that are matched"},
    },
    "encoder_keys": ["encoder."],
    "published_recipe": {
        "source": "yeerwen/DeSD, run_ssl.sh and main_DeSD_ssl.py",
        "keys": {
            "optimiser": "sgd",
            "initial_learning_rate": 0.225,
            "momentum": 0.9,
            "weight_decay": 1e-06,
            "learning_rate_schedule": "cosine",
            "warmup": 0.033,
            "gradient_clip": None,
            "batch_size": 192,
        },
        "not_taken": [
            "0.3 for 256 samples there, so 0.225 for its 192; the cosine ends at 0.048",
            "10 of 300 epochs of warm-up, stated here as a fraction of the run",
            "the teacher's momentum rises from 0.996 to 1; here it is the option `momentum`",
            "plain momentum there, Nesterov's here",
        ],
    },
}


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two linear layers with a batch norm over all voxels of a step between them."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Linear(outputs, outputs))


class DeepSelfDistillation(Objective):
    """A student with a projection and a predictor per stage, and a teacher that follows it."""

    def __init__(self, tasks: TaskSet, spec: NetworkSpec, *, momentum: float, embedding: int):
        super().__init__(tasks, spec)
        self.momentum = momentum
        self.student = SharedEncoder(spec, tasks.channel_counts)
        self.student.apply(initialise_weights)
        self.projections = nn.ModuleList(mlp(width, embedding) for width in spec.features[1:])
        self.predictors = nn.ModuleList(mlp(embedding, embedding) for _ in spec.features[1:])
        self.encoder = copy.deepcopy(self.student).requires_grad_(requires_grad=False)
        self.projection = copy.deepcopy(self.projections[-1]).requires_grad_(requires_grad=False)

    def forward(self, images_BCZYX: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean of 2 - 2 cosine similarity over stages, voxels and directions (0..4)."""
        starts_V3 = rng.integers(self._spare_cells() + 1, size=(2, 3))
        views = [self.view(images_BCZYX, start_cells, rng) for start_cells in starts_V3]
        shared = [self._shared_cells(starts_V3, number) for number in range(2)]
        with torch.no_grad():
            taught = [
                self.projection(cells(self.encoder(view)[-1], where)) for view, where in zip(views, shared, strict=True)
            ]
        losses = [
            matching_loss(predictor(projection(cells(x_BCZYX, where))), target_ND)
            for view, where, target_ND in zip(views, shared, taught[::-1], strict=True)
            for projection, predictor, x_BCZYX in zip(
                self.projections, self.predictors, self._stages(view), strict=True
            )
        ]
        return torch.stack(losses).mean()

    def view(self, images_BCZYX: Tensor, start_cells: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Return the crop of a batch at a position of the bottleneck's grid, each patch with intensities of its own."""
        factors = np.array(self.spec.downsampling_zyx)
        size_zyx = np.array(images_BCZYX.shape[2:]) - factors * self._spare_cells()
        place = window((start_cells * factors).tolist(), size_zyx.tolist())
        return torch.stack([intensity_curve(image_CZYX[place], rng) for image_CZYX in images_BCZYX])

    def _spare_cells(self) -> np.ndarray:
        """One voxel of the bottleneck per axis, none where two crops might not overlap."""
        return (np.array(self.spec.bottleneck_grid_zyx) > 2).astype(int)

    def _shared_cells(self, starts_V3: np.ndarray, number: int) -> tuple[slice, ...]:
        """Where, in the deepest features of a crop, the voxels are that lie in both."""
        count = np.array(self.spec.bottleneck_grid_zyx) - self._spare_cells() - abs(starts_V3[0] - starts_V3[1])
        first = starts_V3.max(0) - starts_V3[number]
        return tuple(slice(a, a + n) for a, n in zip(first.tolist(), count.tolist(), strict=True))

    def _stages(self, view_BCZYX: Tensor) -> list[Tensor]:
        """Return the student's features of each down-sampled stage, averaged onto the bottleneck's grid."""
        *shallow, deepest = self.student(view_BCZYX)[1:]
        z, y, x = deepest.shape[2:]
        return [reduce(f, "B C (z a) (y b) (x c) -> B C z y x", "mean", z=z, y=y, x=x) for f in shallow] + [deepest]

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student."""
        for teacher, student in ((self.encoder, self.student), (self.projection, self.projections[-1])):
            for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
                own.lerp_(other, 1 - self.momentum)


def cells(features_BCZYX: Tensor, where: tuple[slice, ...]) -> Tensor:
    """Return the features of the voxels in a window of the grid, one row each, `cells_NC`."""
    return rearrange(features_BCZYX[(slice(None), slice(None), *where)], "B C z y x -> (B z y x) C")


def matching_loss(predicted_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Return the mean of 2 - 2 cosine similarity."""
    return 2 - 2 * functional.cosine_similarity(predicted_ND.float(), target_ND.float()).mean()


def build(tasks: TaskSet, spec: NetworkSpec, *, momentum: float = 0.99, embedding: int = 128) -> DeepSelfDistillation:
    """Return the objective for a set of tasks."""
    return DeepSelfDistillation(tasks, spec, momentum=momentum, embedding=embedding)
