"""The U-Net of Models Genesis: the network that takes the released chest-CT weights.

Axis legend: B batch, C channel, K class, Z Y X space. Written from the facts of the released network (Zhou et al.,
MICCAI 2019). Modules have the names of the released state dict, so that it loads as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.blocks.own_network import PerTaskModel, the_task
from models.blocks.plain_unet import DOWN, NORM_STATISTICS, PlainUNet
from models.interface import NetworkSpec
from models.weights.official import Shape, check_arguments, majority, shapes_of
from models.weights.official import inputs as inputs_of
from models.weights.official import outputs as outputs_of
from models.weights.reading import load_strictly, tensors_of
from segbench.core.task import TaskSet

CARD = {
    "title": "Models Genesis U-Net",
    "kind": "single_task",
    "citation": "Zhou et al., Models Genesis: Generic Autodidactic Models for 3D Medical Image Analysis, MICCAI 2019",
    "url": "https://github.com/MrGiovanni/ModelsGenesis",
    "licence": "Apache-2.0",
    "original_licence": "Arizona State University, non-commercial, with a patent notice",
    "fidelity": "numerical",
    "deviations": [
        "a softmax over the task's classes in place of the sigmoid of one output",
        "widths follow the config's base; with base 32 they are the original's",
        "input sizes that are no multiple of 8 are padded by their border and cropped back",
        "without released weights unless an initialisation brings them",
        "under the equal recipe SGD replaces the published Adam of learning rate 1e-3",
    ],
    "channels": "any",
    "patch_multiple": [8, 8, 8],
    "options": {
        "deep_supervision": {
            "default": False,
            "help": "whether the coarser decoder stages answer too, which the original's do not",
            "labels": {True: "deep supervision"},
        }
    },
    "encoder_keys": ["network.down_tr"],
    "backbone": "own",
    "published_recipe": {
        "source": "MrGiovanni/ModelsGenesis, keras/downstream_tasks/config.py, utils.py and lung nodule "
        "segmentation.ipynb: fine-tuning for lung nodules",
        "keys": {
            "optimiser": "adam",
            "initial_learning_rate": 0.001,
            "weight_decay": 0.0,
            "gradient_clip": None,
            "batch_size": 16,
        },
        "not_taken": [
            "the learning rate is halved there when 6 epochs bring no gain on validation cases; training ends when 50 "
            "bring none",
            "batches of 64x64x32 voxels; fewer samples where the memory does not hold 16, 10 in the notebook",
            "the Dice loss alone, images scaled to 0..1, pre-trained weights; Keras's own constants of Adam",
            "pytorch/README.md: SGD with momentum 0.9 and a learning rate that it does not state",
        ],
    },
}
OFFICIAL = "models_genesis_official"
WHERE = "official Models Genesis weights"
FIRST = f"{DOWN[0]}.ops.0"


class OutputConvolution(nn.Module):
    """A convolution of 1x1x1 and what follows it: nothing for logits, a sigmoid in the original."""

    def __init__(self, width: int, outputs: int, answer: nn.Module):
        super().__init__()
        self.final_conv = nn.Conv3d(width, outputs, 1)
        self.answer = answer

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the outputs on the grid of the features."""
        return self.answer(self.final_conv(x_BCZYX))


class ModelsGenesisUNet(PlainUNet):
    """The plain U-Net with an output convolution, and one at each coarser decoder stage when asked for.

    Args:
        channels, outputs: of the image and of the answer.
        base: width of the very first convolution.
        activation, slopes: as those of the U-Net.
        answer: applied to the outputs.
        deep_supervision: whether the coarser decoder stages answer too.
    """

    def __init__(
        self,
        *,
        channels: int,
        outputs: int,
        base: int = 32,
        activation: str = "relu",
        slopes: int | None = None,
        answer: nn.Module | None = None,
        deep_supervision: bool = False,
    ):
        super().__init__(channels, base, activation=activation, slopes=slopes)
        answer = answer or nn.Identity()
        self.out_tr = OutputConvolution(2 * base, outputs, answer)
        coarser = (4 * base, 8 * base) if deep_supervision else ()
        self.coarser = nn.ModuleList(OutputConvolution(width, outputs, answer) for width in coarser)

    def forward(self, images_BCZYX: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Return the answer at full resolution, then those of the coarser decoder stages."""
        _, *decoded = self.stages(images_BCZYX)
        finest_first = decoded[::-1]
        heads = [self.out_tr, *self.coarser]
        return [head(x_BCZYX) for head, x_BCZYX in zip(heads, finest_first, strict=False)]


def from_official(state_dict: Mapping[str, Tensor], **arch: object) -> ModelsGenesisUNet:
    """Return the network with these weights, in evaluation mode; it answers with the sigmoid, as the original does.

    Args:
        state_dict: of the released network; it may be wrapped in a checkpoint. Running statistics of the batch norms,
            which the network never reads, may be in it or not.
        arch: arguments of the original's constructor. Only `act` is needed: relu (when absent), elu or prelu.

    Raises:
        InputError: for a missing, unexpected or reshaped tensor, and for another activation.
    """
    check_arguments(arch, WHERE, act=("relu", "elu", "prelu"))
    state = {
        name: tensor for name, tensor in tensors_of(state_dict, WHERE).items() if not name.endswith(NORM_STATISTICS)
    }
    shapes = shapes_of(state)
    slopes = sorted(name for name in shapes if name.endswith(".activation.weight"))
    network = ModelsGenesisUNet(
        channels=majority(shapes, [f"{FIRST}.conv1.weight"], inputs_of, where=WHERE),
        outputs=majority(shapes, ["out_tr.final_conv.bias", "out_tr.final_conv.weight"], outputs_of, where=WHERE),
        base=majority(
            shapes,
            [f"{FIRST}.{end}" for end in ("bn1.weight", "bn1.bias", "conv1.bias", "conv1.weight")],
            outputs_of,
            where=WHERE,
        ),
        activation="prelu" if slopes else str(arch.get("act", "relu")),
        slopes=1 if slopes and _single(shapes, slopes) else None,
        answer=nn.Sigmoid(),
    )
    load_strictly(network, state, WHERE)
    return network.eval()


def _single(shapes: Mapping[str, Shape], names: list[str]) -> bool:
    """Tell whether the units have a single slope instead of one per channel."""
    return majority(shapes, names, lambda shape: shape == (1,), where=WHERE)


def build(tasks: TaskSet, spec: NetworkSpec, *, deep_supervision: bool = False) -> PerTaskModel:
    """Return the network for the only task of `tasks`."""
    task = the_task(tasks)
    network = ModelsGenesisUNet(
        channels=task.num_channels,
        outputs=task.num_classes,
        base=spec.base_features,
        deep_supervision=deep_supervision,
    )
    return PerTaskModel(tasks, spec, network=network, multiple_zyx=CARD["patch_multiple"])
