"""MedFormer as released: convolutions at fine scales, attention between features and a few tokens at coarse ones.

Axis legend: B batch, C channel, K class, Z Y X space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.blocks.medformer import (
    MAP_LAYERS,
    PUBLISHED_FUSION_HEADS,
    PUBLISHED_HEADS,
    Down,
    MapFusion,
    Sizes,
    Stem,
    Up,
    enlarged,
    has_auxiliary,
    measured,
    sizes_for,
)
from models.blocks.own_network import PerTaskModel, the_task
from models.interface import NetworkSpec
from models.weights.official import check_arguments, majority, shapes_of
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.task import TaskSet

CARD = {
    "title": "MedFormer",
    "kind": "single_task",
    "citation": "Gao et al., A Data-scalable Transformer for Medical Image Segmentation: Architecture, Model "
    "Efficiency, and Benchmark, arXiv 2203.00131, 2022",
    "url": "https://github.com/yhygao/CBIM-Medical-Image-Segmentation",
    "licence": "Apache-2.0",
    "original_licence": "Apache-2.0",
    "fidelity": "numerical",
    "deviations": [
        "widths follow the config's base; with base 32 they are those of the original's AMOS setting",
        "input sizes that are no multiple of 16 are padded by their border and cropped back",
        "under the equal recipe SGD replaces the published AdamW of learning rate 6e-4, and there is no exponential "
        "moving average of the weights",
    ],
    "channels": "any",
    "patch_multiple": [16, 16, 16],
    "options": {},
    "encoder_keys": ["network.inc.", "network.down"],
    "backbone": "own",
    "published_recipe": {
        "source": "yhygao/CBIM-Medical-Image-Segmentation, config/amos_ct/medformer_3d.yaml, train.py and "
        "training/utils.py",
        "keys": {
            "optimiser": "adamw",
            "initial_learning_rate": 0.0006,
            "betas": [0.9, 0.999],
            "epsilon": 1e-05,
            "weight_decay": 0.05,
            "learning_rate_schedule": "poly",
            "poly_exponent": 0.9,
            "warmup": 0.0125,
            "gradient_clip": None,
            "ema_decay": 0.99,
        },
        "not_taken": [
            "5 of 400 epochs of warm-up, stated here as a fraction of the run; exponential and part of the decay there",
            "a version of the file with another network has 300 epochs",
            "the learning rate changes once per epoch there, per step here",
            "the average keeps less than its decay in the first 100 steps there",
            "the batch size of AMOS is not stated; examples for ACDC have 3 on one GPU and 16 or 32 on four",
            "the background weighs half in the cross-entropy there; the repository's own augmentation",
        ],
    },
}
OFFICIAL = "medformer_official"
WHERE = "official MedFormer weights"


class MedFormer(nn.Module):
    """Four down-sampling levels, the fusion of their maps, four up-sampling levels."""

    def __init__(self, sizes: Sizes, *, channels: int, classes: int, auxiliary: bool = True):
        super().__init__()
        self.inc = Stem([channels], sizes.base, sizes.kernels_zyx[0], activation=sizes.activation)
        self.down1, self.down2, self.down3, self.down4 = (Down(sizes, level, MAP_LAYERS) for level in range(4))
        self.map_fusion = MapFusion(sizes, MAP_LAYERS)
        self.up1, self.up2, self.up3, self.up4 = (Up(sizes, level, MAP_LAYERS) for level in range(4, 8))
        self.outc = nn.Conv3d(sizes.base, classes, 1)
        self.aux_out = nn.Conv3d(sizes.widths[5], classes, 1) if auxiliary else None

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:
        """Return `logits_BKZYX` and, when there is one, the auxiliary output, both at full resolution."""
        x0 = self.inc(images_BCZYX)
        x1 = self.down1.shrink(x0)
        x2, map2, _ = self.down2(x1)
        x3, map3, _ = self.down3(x2)
        x4, map4, _ = self.down4(x3)
        map2, map3, map4 = self.map_fusion([map2, map3, map4])
        x_BCZYX, map_BNC, _ = self.up1.attend(x4, x3, map4, map3)
        x_BCZYX, _, _ = self.up2.attend(x_BCZYX, x2, map_BNC, map2)
        auxiliary = []
        if self.aux_out is not None:
            auxiliary = [enlarged(self.aux_out(x_BCZYX), images_BCZYX.shape[2:])]
        return [self.outc(self.up4(self.up3(x_BCZYX, x1), x0)), *auxiliary]


def from_official(
    state_dict: Mapping[str, Tensor],
    *,
    num_heads: Sequence[int] = PUBLISHED_HEADS,
    fusion_heads: int = PUBLISHED_FUSION_HEADS,
    scale: Sequence[Sequence[int]] = ((2, 2, 2),) * 4,
    act: str = "relu",
    **arch: object,
) -> MedFormer:
    """Return the network with these weights, in evaluation mode.

    Args:
        state_dict: of the released network; it may be wrapped in a checkpoint.
        num_heads: heads of the four levels down and the four up.
        fusion_heads: heads where the maps of all levels meet.
        scale: down-sampling z, y, x of each level.
        act: 'relu' or 'gelu'.
        arch: further arguments of the original's constructor. Shapes tell all sizes; the rest has to be as released.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for an argument that asks for another network.
    """
    own = ("num_heads", "fusion_heads", "scale", "act")
    check_arguments(arch, WHERE, named=own, conv_block="BasicBlock", proj_type="depthwise", norm="in")
    state = tensors_of(state_dict, WHERE)
    shapes = shapes_of(state)
    network = MedFormer(
        measured(shapes, WHERE, heads=num_heads, fusion_heads=fusion_heads, scales_zyx=scale, activation=act),
        channels=majority(shapes, ["inc.conv1.weight"], inputs_of, where=WHERE),
        classes=majority(shapes, ["outc.weight", "outc.bias"], outputs_of, where=WHERE),
        auxiliary=has_auxiliary(shapes),
    )
    load_strictly(network, state, WHERE)
    return network.eval()


def build(tasks: TaskSet, spec: NetworkSpec) -> PerTaskModel:
    """Return the network for the only task of `tasks`; first width 32 at the base width 32."""
    task = the_task(tasks)
    network = MedFormer(sizes_for(spec), channels=task.num_channels, classes=task.num_classes)
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"], scale_rule="equal")
